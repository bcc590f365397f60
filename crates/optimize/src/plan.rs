//! A recipe applied to a model: what every layer gets, checked before anything is read.

use bantam_backend::KvFormat;
use bantam_model::{ArchSpec, StoredLinear};

use crate::fold::can_fold;
use crate::{
    FactorMethod, GroupChoice, KvKind, OptimizeError, Recipe, RoundMethod, Rule, ScaleChoice,
    Treatment,
};

/// What every layer of a model gets.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizationPlan {
    /// For each block the four sites, in the order they run; none where weights stay.
    pub blocks: Vec<[Option<Treatment>; 4]>,
    /// The cache's format; none to leave it.
    pub kv: Option<KvFormat>,
    /// What a user should know: groups that were chosen, layers that stay, factors left out.
    pub notes: Vec<String>,
}

impl QuantizationPlan {
    /// Applies a recipe.
    ///
    /// # Errors
    /// If layers that read one input would get different treatments, a group size does not divide a
    /// layer, or nothing is left to do; the error names the layers.
    pub fn new(recipe: &Recipe, arch: &ArchSpec) -> Result<Self, OptimizeError> {
        let mut notes = Notes::default();
        let blocks = (0..arch.sizes.layers).map(|layer| {
            let linears = arch.linears(layer);
            let mut sites = [None; 4];
            for (index, (site, linear)) in sites.iter_mut().zip(&linears).enumerate() {
                *site = treatment(recipe, linear, &mut notes)?;
                let Some(treatment) = site else { continue };
                if treatment.factors != FactorMethod::Nothing && !can_fold(arch, index) {
                    treatment.factors = FactorMethod::Nothing;
                    notes.add("no operation before to take factors: none", linear);
                }
            }
            Ok(sites)
        });
        let blocks: Vec<_> = blocks.collect::<Result<_, OptimizeError>>()?;
        let kv = recipe.kv.map(KvKind::format);
        if kv.is_none() && blocks.iter().flatten().all(Option::is_none) {
            return Err(OptimizeError::NothingToDo { recipe: recipe.name.clone() });
        }
        Ok(Self { blocks, kv, notes: notes.lines() })
    }

    /// Whether every site keeps its weights and needs no statistics.
    #[must_use]
    pub fn needs_calibration(&self) -> bool {
        let needs = |treatment: &Treatment| {
            treatment.factors != FactorMethod::Nothing
                || treatment.round != RoundMethod::Nearest
                || treatment.scale != ScaleChoice::Token
        };
        self.kv.is_some() || self.blocks.iter().flatten().flatten().any(needs)
    }
}

/// What the parts of a site get; they must agree.
fn treatment(
    recipe: &Recipe,
    linear: &StoredLinear,
    notes: &mut Notes,
) -> Result<Option<Treatment>, OptimizeError> {
    let mut rules = linear.parts.iter().map(|part| (part, recipe.rule_for(&part.module)));
    let (first, rule) = rules.next().expect("a linear layer has a part");
    let like = |other: Option<&Rule>| match (rule, other) {
        (Some(a), Some(b)) => {
            a.treatment(linear.k) == b.treatment(linear.k) && a.weights == b.weights
        }
        (None, None) => true,
        _ => false,
    };
    if let Some((other, _)) = rules.find(|(_, other)| !like(*other)) {
        return Err(OptimizeError::SplitSite {
            recipe: recipe.name.clone(),
            first: first.module.clone(),
            other: other.module.clone(),
        });
    }
    let Some(rule) = rule else {
        notes.add("kept as they are", linear);
        return Ok(None);
    };
    match rule.group {
        GroupChoice::Of(group) if !linear.k.is_multiple_of(group) => {
            return Err(OptimizeError::Group { module: first.module.clone(), k: linear.k, group });
        }
        _ => {}
    }
    let treatment = rule.treatment(linear.k);
    match treatment {
        Some(treatment) => notes.add(&treatment.scheme.to_string(), linear),
        None => notes.add("kept as they are: no group of 128, 64, 32 or 16 divides K", linear),
    }
    Ok(treatment)
}

/// Notes by what they say, with the layers they are about.
#[derive(Default)]
struct Notes(Vec<(String, Vec<String>)>);

impl Notes {
    fn add(&mut self, text: &str, linear: &StoredLinear) {
        let names = linear.parts.iter().filter_map(|part| part.module.rsplit('.').next());
        let name = names.collect::<Vec<_>>().join("+");
        match self.0.iter_mut().find(|(known, _)| known == text) {
            Some((_, about)) if about.contains(&name) => {}
            Some((_, about)) => about.push(name),
            None => self.0.push((text.to_owned(), vec![name])),
        }
    }

    fn lines(self) -> Vec<String> {
        self.0.into_iter().map(|(text, about)| format!("{}: {text}", about.join(", "))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arch() -> ArchSpec {
        ArchSpec::from_config(&serde_json::json!({
            "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536,
            "num_hidden_layers": 2, "num_attention_heads": 9, "num_key_value_heads": 3,
            "vocab_size": 512, "max_position_embeddings": 256, "rms_norm_eps": 1e-5,
            "rope_theta": 1e4, "tie_word_embeddings": true, "hidden_act": "silu",
        }))
        .unwrap()
    }

    fn recipe(rules: &str) -> Recipe {
        Recipe::from_toml("mine", &format!("about = \"x\"\n{rules}")).unwrap()
    }

    #[test]
    fn the_group_fits_each_layer_and_the_notes_say_so() {
        let plan = QuantizationPlan::new(&Recipe::built_in("int4_wo").unwrap(), &arch()).unwrap();
        let scheme = |site: usize| plan.blocks[1][site].unwrap().scheme.to_string();
        assert_eq!([0, 1, 2, 3].map(scheme), ["int4-g64", "int4-g64", "int4-g64", "int4-g128"]);
        assert_eq!(
            plan.notes,
            ["q_proj+k_proj+v_proj, o_proj, gate_proj+up_proj: int4-g64", "down_proj: int4-g128"]
        );
        assert!(!plan.needs_calibration());
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let rules = "[[rules]]\nlayers = \"*\"\nweights = \"int4\"\ngroup = 128";
        let error = QuantizationPlan::new(&recipe(rules), &arch()).unwrap_err().to_string();
        assert!(error.contains("layers.0.self_attn.q_proj") && error.contains("64"), "{error}");
        let rules = "[[rules]]\nlayers = \"*.k_proj\"\nweights = \"int8\"";
        let error = QuantizationPlan::new(&recipe(rules), &arch()).unwrap_err().to_string();
        assert!(error.contains("q_proj") && error.contains("k_proj"), "{error}");
        let error = QuantizationPlan::new(&recipe("rules = []"), &arch()).unwrap_err().to_string();
        assert!(error.contains("mine"), "{error}");
    }
}
