//! The interactive chat of `bantam run`.

use std::io::{self, BufRead};
use std::str::Utf8Error;

use bantam_text::Message;

use crate::interrupt;
use crate::output;
use crate::run::{Session, encode_chat};

/// Reads turns from standard input until it ends or `/exit`.
pub(crate) fn run(session: &mut Session) -> anyhow::Result<()> {
    let context = session.decoder.plan().max_context;
    output::print_line(format_args!(
        "{}, {}, {context} tokens of context. /clear starts anew, /exit ends, Ctrl-C stops an answer.",
        session.model.name,
        session.decoder.options().precision,
    ))?;
    let mut history: Vec<Message> = Vec::new();
    loop {
        output::print("> ")?;
        let line = match read_line(&mut io::stdin().lock())? {
            Some(Ok(line)) => line,
            Some(Err(error)) => {
                eprintln!("error: this line is not UTF-8 ({error}); type it again");
                continue;
            }
            None => {
                output::print("\n")?;
                return Ok(());
            }
        };
        match line.trim() {
            "" => {}
            "/exit" => return Ok(()),
            "/clear" => history.clear(),
            command if command.starts_with('/') => {
                output::print_line(format_args!("unknown command {command}; use /clear or /exit"))?;
            }
            text => {
                history.push(Message::new("user", text));
                if let Err(error) = turn(session, &mut history) {
                    if output::is_broken_pipe(&error) {
                        return Err(error);
                    }
                    // The conversation stays as it was before the turn that failed.
                    history.pop();
                    eprintln!("error: {}", output::one_line(&error.to_string()));
                }
            }
        }
    }
}

/// The next line, if it is text; none at the end.
fn read_line(input: &mut impl BufRead) -> io::Result<Option<Result<String, Utf8Error>>> {
    let mut bytes = Vec::new();
    if input.read_until(b'\n', &mut bytes)? == 0 {
        return Ok(None);
    }
    Ok(Some(String::from_utf8(bytes).map_err(|error| error.utf8_error())))
}

/// Answers the last message and appends the answer. Turns that no longer fit are forgotten, the
/// oldest first.
fn turn(session: &mut Session, history: &mut Vec<Message>) -> anyhow::Result<()> {
    let context = session.decoder.plan().max_context;
    let (forgotten, prompt) =
        fitting_prompt(history, context, |messages| encode_chat(&session.tokenizer, messages))?;
    let generation = session.stream(&prompt);
    // Ctrl-C ended this answer, whether or not it failed as well, and not the chat.
    interrupt::forget();
    let generation = generation?;
    if forgotten > 0 {
        history.drain(..forgotten);
        eprintln!("[the context is full: the oldest {forgotten} messages are forgotten]");
    }
    history.push(Message::new("assistant", generation.text));
    Ok(())
}

/// How many of the oldest messages must go so that a quarter of the context is left for the answer,
/// and the prompt of the others. The last message stays, however long it is.
fn fitting_prompt(
    history: &[Message],
    context: usize,
    encode: impl Fn(&[Message]) -> anyhow::Result<Vec<u32>>,
) -> anyhow::Result<(usize, Vec<u32>)> {
    let mut forgotten = 0;
    loop {
        let prompt = encode(&history[forgotten..])?;
        // Question and answer go together: what is left begins with a question.
        if prompt.len() <= context - context / 4 || forgotten + 2 >= history.len() {
            return Ok((forgotten, prompt));
        }
        forgotten += 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_not_text_does_not_end_the_input() {
        let mut input: &[u8] = b"caf\xe9\nnext\n";
        assert!(read_line(&mut input).unwrap().unwrap().is_err());
        assert_eq!(read_line(&mut input).unwrap().unwrap().unwrap(), "next\n");
        assert!(read_line(&mut input).unwrap().is_none());
    }

    #[test]
    fn the_oldest_turns_are_forgotten_when_the_context_is_full() {
        let message = |content: &str| Message::new("any", content);
        let history = ["aaaa", "bbbb", "cccc", "dddd", "ee"].map(message);
        // One token for each letter.
        let encode = |messages: &[Message]| {
            Ok(messages
                .iter()
                .flat_map(|m| m.content.iter().flat_map(|text| text.bytes()).map(u32::from))
                .collect())
        };
        let fitting = |context| fitting_prompt(&history, context, encode).unwrap();
        assert_eq!(fitting(24).0, 0);
        assert_eq!(fitting(22).0, 2);
        assert_eq!(fitting(12), (4, vec![u32::from(b'e'); 2]));
        // What is too long alone is for the engine to refuse.
        assert_eq!(fitting(1).0, 4);
    }
}
