//! Rules that several families share: which key of a configuration switches a part on.

use super::config::Config;
use crate::arch::{MAX_LAYERS, MAX_POSITIONS};
use crate::error::ModelError;

/// Whether linear layers have biases.
pub(super) enum Bias {
    Always,
    Never,
    /// As this key says; absent means no.
    Key(&'static str),
}

impl Bias {
    pub(super) fn read(&self, config: &Config<'_>) -> Result<bool, ModelError> {
        match self {
            Self::Always => Ok(true),
            Self::Never => Ok(false),
            Self::Key(key) => config.flag(key, false),
        }
    }
}

/// `sliding_window` of the families that have one, where a file does not state it.
const DEFAULT_WINDOW: usize = 4096;
/// `max_window_layers` likewise.
const DEFAULT_WINDOW_START: usize = 28;

/// Which layers `sliding_window` holds for.
pub(super) enum WindowRule {
    /// None of them.
    NoLayer,
    /// All of them.
    EveryLayer,
    /// If `use_sliding_window`: those that `layer_types` names, else those from `max_window_layers`.
    Chosen,
}

impl WindowRule {
    /// The window of each layer.
    pub(super) fn read(
        &self,
        config: &Config<'_>,
        layers: usize,
    ) -> Result<Vec<Option<usize>>, ModelError> {
        let layers = layers.min(MAX_LAYERS); // more are refused later; until then, stay small
        let active = match self {
            Self::NoLayer => false,
            Self::EveryLayer => true,
            Self::Chosen => config.flag("use_sliding_window", false)?,
        };
        let stated = if config.lacks("sliding_window") {
            Some(DEFAULT_WINDOW)
        } else {
            config.count_or_none("sliding_window")?
        };
        let Some(window) = stated.filter(|_| active) else {
            return Ok(vec![None; layers]);
        };
        let window = window.min(MAX_POSITIONS); // a longer one hides nothing either
        if matches!(self, Self::EveryLayer) {
            return Ok(vec![Some(window); layers]);
        }
        if let Some(kinds) = config.texts("layer_types")? {
            let window_of = |kind: &str| match kind {
                "full_attention" => Ok(None),
                "sliding_attention" => Ok(Some(window)),
                other => {
                    let expected = "full_attention or sliding_attention";
                    Err(config.bad("layer_types", &format!("`{other}`"), expected))
                }
            };
            return kinds.into_iter().map(window_of).collect();
        }
        let first = config.count_or("max_window_layers", DEFAULT_WINDOW_START)?;
        Ok((0..layers).map(|layer| (layer >= first).then_some(window)).collect())
    }
}
