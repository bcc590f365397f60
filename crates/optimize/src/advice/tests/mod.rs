//! Predictions beside what was published, and the rules of the guide.

mod published;
mod ranking;

use bantam_model::ArchSpec;

use super::{Advice, Candidate, Device, Measured, Question, Workload, advise};

/// A network shaped like Llama.
struct Shape {
    layers: usize,
    hidden: usize,
    feed_forward: usize,
    heads: usize,
    kv_heads: usize,
    vocabulary: usize,
    tied: bool,
}

impl Shape {
    const LLAMA2_7B: Self = Self {
        layers: 32,
        hidden: 4096,
        feed_forward: 11008,
        heads: 32,
        kv_heads: 32,
        vocabulary: 32000,
        tied: false,
    };
    const LLAMA2_70B: Self = Self {
        layers: 80,
        hidden: 8192,
        feed_forward: 28672,
        heads: 64,
        kv_heads: 8,
        ..Self::LLAMA2_7B
    };
    const LLAMA3_8B: Self =
        Self { feed_forward: 14336, kv_heads: 8, vocabulary: 128_256, ..Self::LLAMA2_7B };
    const LLAMA3_70B: Self = Self { vocabulary: 128_256, ..Self::LLAMA2_70B };
    const BAICHUAN2_13B: Self = Self {
        layers: 40,
        hidden: 5120,
        feed_forward: 13696,
        heads: 40,
        kv_heads: 40,
        vocabulary: 125_696,
        tied: false,
    };
    const SMOLLM2: Self = Self {
        layers: 30,
        hidden: 576,
        feed_forward: 1536,
        heads: 9,
        kv_heads: 3,
        vocabulary: 49152,
        tied: true,
    };

    fn arch(&self) -> ArchSpec {
        ArchSpec::from_config(&serde_json::json!({
            "model_type": "llama", "hidden_size": self.hidden,
            "intermediate_size": self.feed_forward, "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads, "num_key_value_heads": self.kv_heads,
            "vocab_size": self.vocabulary, "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-5, "rope_theta": 1e4, "tie_word_embeddings": self.tied,
            "hidden_act": "silu",
        }))
        .unwrap()
    }
}

fn workload(batch: usize, input_tokens: usize, output_tokens: usize) -> Workload {
    Workload { batch, input_tokens, output_tokens }
}

/// A machine of two cores such as the one that the figures of the README come from.
fn cpu() -> Device {
    let peaks = super::Peaks { bf16: 470e9, int8: 850e9, fp8: None };
    Device::cpu("cpu".to_owned(), Some(16 << 30), 29e9, peaks)
}

fn question<'a>(arch: &'a ArchSpec, device: &'a Device, workload: Workload) -> Question<'a> {
    Question { arch, device, workload, kv: None, max_loss: None, measured: &[] }
}

fn ask(arch: &ArchSpec, device: &Device, workload: Workload) -> Advice {
    advise(&question(arch, device, workload)).unwrap()
}

fn of<'a>(advice: &'a Advice, recipe: &str) -> &'a Candidate {
    advice.candidates.iter().find(|candidate| candidate.recipe == recipe).unwrap()
}
