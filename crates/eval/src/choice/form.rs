//! How an item is put to a model.
//!
//! Accuracies compare only within one form: they differ by tenths of a point for the same model, as
//! much as an 8-bit format costs.

use std::fmt;
use std::str::FromStr;

use super::item::{Item, Stem};

/// How an item is put to a model, and what counts as its answer.
///
/// | form | prompt | answer |
/// |---|---|---|
/// | `letters` | choices listed as A, B, …; `Answer:` | the letter with the highest log-likelihood |
/// | `texts` | the question alone; `Answer:` | the choice whose text has the highest log-likelihood |
/// | `greedy` | as `letters` | the letter that the model writes |
///
/// `letters` is lm-eval's MMLU and `texts` its ARC and HellaSwag; `greedy` is the script of NVIDIA's
/// Model Optimizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Log-likelihood of each letter after a list of the choices.
    Letters,
    /// Log-likelihood of each choice's text, also by its length.
    Texts,
    /// The letter that the model writes after a list of the choices.
    Greedy,
}

/// What a model reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// Everything up to where the answer begins.
    pub context: String,
    /// What may stand there, for each choice; each begins with a space.
    pub continuations: Vec<String>,
}

impl Form {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Letters, "letters"), (Self::Texts, "texts"), (Self::Greedy, "greedy")];

    /// Whether the choices are listed, which takes a question.
    #[must_use]
    pub const fn lists_choices(self) -> bool {
        matches!(self, Self::Letters | Self::Greedy)
    }

    /// The prompt of an item after some examples.
    ///
    /// ```
    /// use bantam_eval::choice::{Form, ItemSet};
    /// let line = r#"{"subject": "zoology", "question": "A spider's legs?", "choices": ["6", "8"], "answer": 1}"#;
    /// let set = ItemSet::from_jsonl(line, "legs.jsonl")?;
    /// let prompt = Form::Letters.prompt(&set.items[0], &[]);
    /// assert_eq!(
    ///     prompt.context,
    ///     "The following are multiple choice questions (with answers) about zoology.\n\n\
    ///      A spider's legs?\nA. 6\nB. 8\nAnswer:"
    /// );
    /// assert_eq!(prompt.continuations, [" A", " B"]);
    /// let prompt = Form::Texts.prompt(&set.items[0], &[]);
    /// assert_eq!(prompt.context, "Question: A spider's legs?\nAnswer:");
    /// assert_eq!(prompt.continuations, [" 6", " 8"]);
    /// # Ok::<(), bantam_eval::EvalError>(())
    /// ```
    #[must_use]
    pub fn prompt(self, item: &Item, shots: &[&Item]) -> Prompt {
        let mut context = if self.lists_choices() { heading(&item.subject) } else { String::new() };
        for shot in shots {
            context += &self.asked(shot);
            context += &self.continuation(shot, shot.answer);
            context += "\n\n";
        }
        context += &self.asked(item);
        let choices = 0..item.choices.len();
        Prompt { context, continuations: choices.map(|c| self.continuation(item, c)).collect() }
    }

    /// An item without its answer.
    fn asked(self, item: &Item) -> String {
        let (Stem::Question(text) | Stem::Context(text)) = &item.stem;
        match (self, &item.stem) {
            (Self::Texts, Stem::Question(_)) => format!("Question: {text}\nAnswer:"),
            (Self::Texts, Stem::Context(_)) => text.clone(),
            // lm-eval strips the question, NVIDIA's script does not.
            (Self::Letters, _) => format!("{}\n{}Answer:", text.trim(), listed(&item.choices)),
            (Self::Greedy, _) => format!("{text}\n{}Answer:", listed(&item.choices)),
        }
    }

    /// A choice as the answer, with the space before it.
    fn continuation(self, item: &Item, choice: usize) -> String {
        if self.lists_choices() {
            format!(" {}", letter(choice))
        } else {
            format!(" {}", item.choices[choice])
        }
    }
}

fn heading(subject: &str) -> String {
    let about = if subject.is_empty() {
        String::new()
    } else {
        format!(" about {}", subject.replace('_', " "))
    };
    format!("The following are multiple choice questions (with answers){about}.\n\n")
}

/// One line for each choice.
fn listed(choices: &[String]) -> String {
    choices.iter().enumerate().map(|(i, choice)| format!("{}. {choice}\n", letter(i))).collect()
}

/// `A` for the first choice.
pub(super) fn letter(choice: usize) -> char {
    char::from(b'A' + choice as u8)
}

/// The choice that a written answer begins with, if it begins with a letter of one.
pub(super) fn written_choice(text: &str, num_choices: usize) -> Option<usize> {
    let first = text.trim_start().chars().next()?;
    (0..num_choices).find(|&choice| letter(choice) == first)
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(form, _)| form == self).map_or("", |&(_, name)| name);
        f.write_str(name)
    }
}

impl FromStr for Form {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = Self::ALL.iter().find(|&&(_, name)| name == text).map(|&(form, _)| form);
        form.ok_or_else(|| "expected letters, texts or greedy".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(stem: Stem) -> Item {
        Item::new("a_b".into(), stem, vec!["x".into(), "y z".into()], 1).unwrap()
    }

    #[test]
    fn examples_stand_before_the_item_with_their_answers() {
        let item = item(Stem::Question(" q? ".into()));
        let listed = "q?\nA. x\nB. y z\nAnswer:";
        let heading = "The following are multiple choice questions (with answers) about a b.\n\n";
        let letters = Form::Letters.prompt(&item, &[&item]);
        assert_eq!(letters.context, format!("{heading}{listed} B\n\n{listed}"));
        let texts = Form::Texts.prompt(&item, &[&item]);
        assert_eq!(texts.context, "Question:  q? \nAnswer: y z\n\nQuestion:  q? \nAnswer:");
        assert!(Form::Greedy.prompt(&item, &[]).context.contains("\n\n q? \nA. x\n"));
    }

    #[test]
    fn a_context_is_continued_as_it_stands() {
        let item = item(Stem::Context("Once".into()));
        let prompt = Form::Texts.prompt(&item, &[&item]);
        assert_eq!(prompt.context, "Once y z\n\nOnce");
        assert_eq!(prompt.continuations, [" x", " y z"]);
    }

    #[test]
    fn a_written_answer_begins_with_its_letter() {
        for (text, choice) in
            [(" B", Some(1)), ("\nA.", Some(0)), ("E", None), ("b", None), (" ", None)]
        {
            assert_eq!(written_choice(text, 4), choice, "{text:?}");
        }
    }
}
