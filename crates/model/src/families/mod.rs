//! The families of networks: which `model_type` is described by which table.

mod config;
mod llama;
mod rope;
mod rules;

use std::path::Path;

use bantam_checkpoint::Quantization;
use serde_json::Value;

use crate::arch::ArchSpec;
use crate::error::ModelError;
use config::Config;

/// A `model_type` and the function that describes its network.
type Family = (&'static str, fn(&Config<'_>) -> Result<ArchSpec, ModelError>);

/// Every `model_type` that is supported.
const FAMILIES: [Family; 4] = [
    ("llama", |config| llama::describe(&llama::LLAMA, config)),
    ("mistral", |config| llama::describe(&llama::MISTRAL, config)),
    ("qwen2", |config| llama::describe(&llama::QWEN2, config)),
    ("qwen3", |config| llama::describe(&llama::QWEN3, config)),
];

/// The `model_type` values that [`ArchSpec::from_config`] knows.
///
/// ```
/// assert!(bantam_model::supported_model_types().any(|name| name == "qwen3"));
/// ```
pub fn supported_model_types() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().map(|(model_type, _)| *model_type)
}

/// The same as a list in a message.
fn model_types_in_words() -> String {
    supported_model_types().collect::<Vec<_>>().join(", ")
}

/// Describes the network of a configuration; sizes are not checked yet.
pub(crate) fn describe(config: &Value, file: &str) -> Result<ArchSpec, ModelError> {
    let quantization = Quantization::from_config(config, Path::new(file));
    let config = Config::new(config, file)?;
    let Some((_, describe)) = FAMILIES.iter().find(|(name, _)| *name == config.model_type()) else {
        return Err(ModelError::UnknownModelType {
            file: file.to_owned(),
            model_type: config.model_type().to_owned(),
            supported: model_types_in_words(),
        });
    };
    Ok(describe(&config)?.quantized(quantization?))
}
