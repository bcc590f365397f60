//! How a model turns text into tokens and ends an answer, for `bantam inspect`.

use bantam_engine::SamplingParams;
use bantam_text::Tokenizer;
use serde_json::{Value, json};

use crate::architecture::number;
use crate::model_arg::OpenModel;

/// The tokenizer and the sampling that a model's files state.
pub(crate) struct ModelText {
    /// Or why there is none to use.
    tokenizer: Result<Tokenizer, String>,
    sampling: Option<SamplingParams>,
}

impl ModelText {
    /// Reads both; a model without a tokenizer can be inspected too.
    pub(crate) fn of(model: &OpenModel) -> Self {
        let config = model.checkpoint.generation_config();
        Self {
            tokenizer: model.tokenizer().map_err(|error| format!("{error:#}")),
            sampling: config.map(|config| SamplingParams::default().as_stated_by(config)),
        }
    }

    /// In words: what, and its value.
    pub(crate) fn in_words(&self) -> Vec<(&'static str, String)> {
        let tokenizer = match &self.tokenizer {
            Ok(tokenizer) => {
                let name = |id: &u32| tokenizer.token_bytes(*id).map(lossy).unwrap_or_default();
                let ends: Vec<String> = tokenizer.eos().iter().map(name).collect();
                let bos = tokenizer.bos().map_or_else(|| "none".to_owned(), |id| name(&id));
                format!("{} tokens, begin {bos}, ends {}", tokenizer.vocab_size(), ends.join(" "))
            }
            Err(error) => error.clone(),
        };
        let template = self.tokenizer.as_ref().ok().and_then(Tokenizer::chat_template);
        let template = template.map_or_else(
            || "none".to_owned(),
            |template| match template.tool_use() {
                Some(tools) => format!("{}, with tools {}", template.origin(), tools.origin()),
                None => template.origin().to_owned(),
            },
        );
        let sampling = match &self.sampling {
            Some(p) => format!(
                "temperature {}, top_k {}, top_p {}, min_p {}, repetition_penalty {}, unless a \
                 request says otherwise",
                p.temperature, p.top_k, p.top_p, p.min_p, p.repetition_penalty
            ),
            None => "not stated".to_owned(),
        };
        vec![("tokenizer", tokenizer), ("chat template", template), ("sampling", sampling)]
    }

    /// As JSON; names and keys are stable.
    pub(crate) fn as_json(&self) -> Value {
        let tokenizer = self.tokenizer.as_ref().ok();
        let template = tokenizer.and_then(Tokenizer::chat_template);
        let sampling = self.sampling.as_ref().map(|p| {
            json!({
                "temperature": number(p.temperature),
                "top_k": p.top_k,
                "top_p": number(p.top_p),
                "min_p": number(p.min_p),
                "typical_p": number(p.typical_p),
                "repetition_penalty": number(p.repetition_penalty),
            })
        });
        json!({
            "vocab_size": tokenizer.map(Tokenizer::vocab_size),
            "bos": tokenizer.and_then(Tokenizer::bos),
            "ends": tokenizer.map(Tokenizer::eos),
            "chat_template": template.map(|template| template.origin()),
            "tool_use_template": template.and_then(|t| t.tool_use()).map(|t| t.origin()),
            "error": self.tokenizer.as_ref().err(),
            "sampling": sampling,
        })
    }
}

fn lossy(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}
