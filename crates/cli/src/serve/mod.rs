//! `bantam serve`: models behind the OpenAI and KServe APIs.

mod args;
mod shares;
mod start;

pub(crate) use args::ServeArgs;
pub(crate) use start::run;
