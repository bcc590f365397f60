//! A conversation that is longer than the context loses its oldest turns.

use bantam_text::{Cancel, Message, Tool};

use crate::ServedModel;
use crate::error::ApiError;
use crate::request::conversation::TemplateFields;

impl TemplateFields {
    /// The tokens of the conversation without as few of its oldest turns as make it `room` tokens or
    /// less. What the system says first stays, and so does the last turn, even if it is too long. A
    /// turn begins with what a user says, so that no call loses its result.
    ///
    /// # Errors
    /// As [`encode`](Self::encode); of the last turn, if not even that fits the context.
    pub(crate) fn encode_latest(
        &self,
        model: &ServedModel,
        messages: &[Message],
        tools: &[Tool],
        room: usize,
        cancel: &Cancel,
    ) -> Result<Vec<u32>, ApiError> {
        let head = messages.iter().take_while(|message| message.role == "system").count();
        let (head, rest) = messages.split_at(head);
        let encode = |start: usize| {
            let kept: Vec<Message> = head.iter().chain(&rest[start..]).cloned().collect();
            self.encode(model, &kept, tools, false, cancel)
        };
        let fitting = |start: usize| match encode(start) {
            Ok(prompt) => Ok((prompt.len() <= room).then_some(prompt)),
            Err(error) if error.code == Some("context_length_exceeded") => Ok(None),
            Err(error) => Err(error),
        };
        let later_turns = (1..rest.len()).filter(|&n| rest[n].role == "user");
        let starts: Vec<usize> = [0].into_iter().chain(later_turns).collect();
        // Fewer turns have fewer tokens: the first start that fits is found by halving.
        let (mut low, mut high, mut fits) = (0, starts.len(), None);
        while low < high {
            // Most conversations fit whole.
            let middle = if (low, high) == (0, starts.len()) { 0 } else { low.midpoint(high) };
            if let Some(prompt) = fitting(starts[middle])? {
                (high, fits) = (middle, Some(prompt));
            } else {
                low = middle + 1;
            }
        }
        fits.map_or_else(|| encode(starts[starts.len() - 1]), Ok)
    }
}
