//! The interactive chat of `bantam run`.

use std::io::{self, BufRead};

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
    let mut line = String::new();
    loop {
        output::print("> ")?;
        line.clear();
        if io::stdin().lock().read_line(&mut line)? == 0 {
            output::print("\n")?;
            return Ok(());
        }
        match line.trim() {
            "" => {}
            "/exit" => return Ok(()),
            "/clear" => history.clear(),
            command if command.starts_with('/') => {
                output::print_line(format_args!("unknown command {command}; use /clear or /exit"))?;
            }
            text => {
                history.push(Message { role: "user".to_owned(), content: text.to_owned() });
                if let Err(error) = turn(session, &mut history) {
                    if output::is_broken_pipe(&error) {
                        return Err(error);
                    }
                    // The conversation stays as it was before the turn that failed.
                    history.pop();
                    eprintln!(
                        "error: {}; /clear starts anew",
                        output::one_line(&error.to_string())
                    );
                }
            }
        }
    }
}

/// Answers the last message and appends the answer.
fn turn(session: &mut Session, history: &mut Vec<Message>) -> anyhow::Result<()> {
    let prompt = encode_chat(&session.tokenizer, history)?;
    let generation = session.stream(&prompt)?;
    interrupt::forget();
    history.push(Message { role: "assistant".to_owned(), content: generation.text });
    Ok(())
}
