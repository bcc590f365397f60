//! Reading the rotary embedding of a configuration, in its older and its newer form.

use super::config::Config;
use crate::error::ModelError;
use crate::rope::{LongRope, RopeScaling, Yarn};

/// θ where a configuration does not say it, as the first Llamas.
const DEFAULT_THETA: f64 = 10_000.0;

/// What a configuration says of rotary embedding.
pub(super) struct RopeConfig {
    pub(super) theta: f32,
    pub(super) scaling: RopeScaling,
    /// The longest context: `max_position_embeddings`, or what YaRN stretches it to.
    pub(super) max_positions: usize,
}

/// Reads `rope_theta` and `rope_scaling`, or both from `rope_parameters` (transformers 5).
pub(super) fn read(config: &Config<'_>, max_positions: usize) -> Result<RopeConfig, ModelError> {
    let parameters = config.object("rope_parameters", "rope_parameters.")?;
    let scaling = match parameters {
        Some(parameters) => Some(parameters),
        None => config.object("rope_scaling", "rope_scaling.")?,
    };
    let inner_theta = parameters.map(|p| p.number_or_none("rope_theta")).transpose()?.flatten();
    let theta = match inner_theta {
        Some(theta) => theta,
        None => config.number_or("rope_theta", DEFAULT_THETA)?,
    };
    let scaling = match scaling {
        Some(scaling) => read_scaling(config, &scaling, max_positions)?,
        None => RopeScaling::None,
    };
    // What the rule stretches the context to, as vLLM has it; transformers sets no limit.
    let stretched =
        |tokens: usize, factor: f64| max_positions.max((tokens as f64 * factor) as usize);
    let max_positions = match &scaling {
        RopeScaling::Yarn(yarn) => stretched(yarn.original, yarn.factor),
        RopeScaling::Linear { factor } => stretched(max_positions, f64::from(*factor)),
        RopeScaling::Dynamic { factor, .. } => stretched(max_positions, f64::from(*factor)),
        _ => max_positions,
    };
    Ok(RopeConfig { theta: theta as f32, scaling, max_positions })
}

fn read_scaling(
    config: &Config<'_>,
    scaling: &Config<'_>,
    max_positions: usize,
) -> Result<RopeScaling, ModelError> {
    let (key, rule) = match scaling.text("rope_type")? {
        Some(rule) => ("rope_type", Some(rule)),
        None => ("type", scaling.text("type")?),
    };
    let factor = || scaling.number("factor").map(|factor| factor as f32);
    Ok(match rule {
        Some("default") => RopeScaling::None,
        Some("linear") => RopeScaling::Linear { factor: factor()? },
        Some("dynamic") => RopeScaling::Dynamic { factor: factor()?, original: max_positions },
        Some("llama3") => RopeScaling::Llama3 {
            factor: factor()?,
            low_freq_factor: scaling.number("low_freq_factor")? as f32,
            high_freq_factor: scaling.number("high_freq_factor")? as f32,
            original: scaling.count("original_max_position_embeddings")?,
        },
        // `su` is what the first Phi-3 files call it.
        Some("longrope" | "su") => {
            RopeScaling::LongRope(read_long_rope(config, scaling, max_positions)?)
        }
        Some("yarn") => RopeScaling::Yarn(read_yarn(scaling, max_positions)?),
        Some(other) => {
            let expected = "default, linear, dynamic, llama3, yarn or longrope";
            return Err(scaling.bad(key, &format!("`{other}`"), expected));
        }
        // No rule is the default one, but what another rule needs is not passed over.
        None => match ["factor", "full_attention", "short_factor"]
            .iter()
            .find(|key| !scaling.lacks(key))
        {
            Some(_) => return Err(scaling.missing("rope_type")),
            None => RopeScaling::None,
        },
    })
}

fn read_yarn(scaling: &Config<'_>, max_positions: usize) -> Result<Yarn, ModelError> {
    // Zero means "not given", as Python's `or` has it.
    let given = |key| Ok::<_, ModelError>(scaling.number_or_none(key)?.filter(|&v| v != 0.0));
    let factor = scaling.number("factor")?;
    let length_scale = |mscale: f64| {
        if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 }
    };
    let attention_factor = match scaling.number_or_none("attention_factor")? {
        Some(stated) => stated,
        None => match (given("mscale")?, given("mscale_all_dim")?) {
            (Some(mscale), Some(all_dims)) => length_scale(mscale) / length_scale(all_dims),
            _ => length_scale(1.0),
        },
    };
    let original = scaling.count_or_none("original_max_position_embeddings")?;
    Ok(Yarn {
        factor,
        original: original.filter(|&tokens| tokens > 0).unwrap_or(max_positions),
        beta_fast: given("beta_fast")?.unwrap_or(32.0),
        beta_slow: given("beta_slow")?.unwrap_or(1.0),
        attention_factor: attention_factor as f32,
        truncate: scaling.flag("truncate", true)?,
    })
}

fn read_long_rope(
    config: &Config<'_>,
    scaling: &Config<'_>,
    max_positions: usize,
) -> Result<LongRope, ModelError> {
    let key = "original_max_position_embeddings";
    let stated = match config.count_or_none(key)? {
        Some(original) => Some(original),
        None => scaling.count_or_none(key)?,
    };
    let stated = stated.filter(|&tokens| tokens > 0);
    let original = stated.unwrap_or(max_positions);
    let factor = match stated {
        Some(original) => max_positions as f64 / original as f64,
        None => scaling.number_or_none("factor")?.unwrap_or(1.0),
    };
    let attention_factor = match scaling.number_or_none("attention_factor")? {
        Some(stated) => stated,
        None if factor <= 1.0 => 1.0,
        None => (1.0 + factor.ln() / (original as f64).ln()).sqrt(),
    };
    Ok(LongRope {
        short: scaling.numbers("short_factor")?,
        long: scaling.numbers("long_factor")?,
        original,
        attention_factor: attention_factor as f32,
    })
}
