//! Quantized checkpoints: which layers are quantized and how, whatever tool wrote them.
//!
//! A dialect's file turns its configuration into [`Rule`]s and its tensors into a
//! [`QuantizedLinear`]. [`Quantization`] is what the rest of the program sees: it knows the scheme of
//! every layer before a weight is read.
//!
//! | file | `quant_method` | formats |
//! |---|---|---|
//! | `compressed_tensors` | `compressed-tensors` | integers in words or bytes, FP8, with or without quantized inputs |
//! | `modelopt` | `modelopt` | FP8 per tensor, channel and block, INT4 and INT8 with and without quantized inputs |
//! | `awq` | `awq` | INT4 of AutoAWQ's GEMM kernels |
//! | `gptq` | `gptq` | INT4 and INT8, in both conventions for zero points, in any activation order |
//! | `fp8` | `fp8` | FP8 per tensor or in blocks, with static or dynamic inputs |

mod awq;
mod compressed_tensors;
mod fp8;
mod gptq;
mod modelopt;
mod pattern;
mod settings;
mod source;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use bantam_backend::QuantizedLinear;
use bantam_numerics::{ActivationFormat, Group, KvFormat, QuantScheme};
use serde_json::Value;

use crate::{Checkpoint, CheckpointError, Format};
pub(crate) use pattern::Pattern;
pub use pattern::fits_glob;
use settings::Settings;
use source::Source;

/// How the linear layers of a checkpoint are quantized.
///
/// ```
/// use bantam_checkpoint::Quantization;
/// use std::path::Path;
/// let config = serde_json::json!({"quantization_config": {
///     "quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": true, "version": "gemm",
/// }});
/// let quantization = Quantization::from_config(&config, Path::new("config.json"))?;
/// let quantization = quantization.expect("it says so");
/// let scheme = quantization.scheme("model.layers.0.mlp.up_proj", 1024, 256)?;
/// assert_eq!(scheme.expect("a quantized layer").to_string(), "int4-g128");
/// assert_eq!(quantization.scheme("lm_head", 1024, 256)?, None);
/// # Ok::<(), bantam_checkpoint::CheckpointError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Quantization {
    /// The file that says all this.
    file: PathBuf,
    method: &'static str,
    /// The first that names a layer counts.
    rules: Vec<Rule>,
    kv_format: Option<KvFormat>,
    /// Modules whose weight is stored as `qweight`, where the names have been looked up.
    with_qweight: Option<HashSet<String>>,
}

/// How some layers are stored.
#[derive(Clone, Debug, PartialEq)]
struct Rule {
    modules: Vec<Pattern>,
    /// None for layers that are not quantized.
    layout: Option<Layout>,
}

/// How a layer is stored.
#[derive(Clone, Debug, PartialEq)]
enum Layout {
    CompressedTensors(compressed_tensors::Layout),
    ModelOpt(modelopt::Layout),
    Awq(awq::Layout),
    Gptq(gptq::Layout),
    Fp8(fp8::Layout),
    /// One that no code here reads: what it is, and what would do.
    Unsupported(String),
}

/// What a dialect knows of a layer of `n` output and `k` input features.
trait LayerFormat {
    /// The scheme, or why the layer cannot have it.
    fn scheme(&self, n: usize, k: usize) -> Result<QuantScheme, String>;

    /// The tensors it is stored in, named without the module.
    fn tensors(&self, n: usize, k: usize) -> Vec<StoredTensor>;

    /// The layer, of the scheme that was announced.
    fn read(&self, source: &Source<'_>) -> Result<QuantizedLinear, CheckpointError>;
}

impl Layout {
    /// What the dialect knows, or why nothing here can read the layer.
    fn format(&self) -> Result<&dyn LayerFormat, &str> {
        Ok(match self {
            Self::CompressedTensors(layout) => layout,
            Self::ModelOpt(layout) => layout,
            Self::Awq(layout) => layout,
            Self::Gptq(layout) => layout,
            Self::Fp8(layout) => layout,
            Self::Unsupported(problem) => return Err(problem),
        })
    }
}

/// A tensor that a quantized layer is stored in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTensor {
    /// Its Hugging Face name.
    pub name: String,
    /// The shapes it may have.
    pub shapes: Vec<Vec<usize>>,
    /// Whether the layer can do without it.
    pub optional: bool,
}

/// The files that say how weights are quantized, beside `config.json`: which key holds the settings,
/// and the method that writes it.
const OTHER_FILES: [(&str, Option<&str>, &str); 3] = [
    ("hf_quant_config.json", Some("quantization"), modelopt::METHOD),
    ("quantize_config.json", None, gptq::METHOD),
    ("quant_config.json", None, awq::METHOD),
];

/// Every method that is read.
const METHODS: [&str; 5] =
    [compressed_tensors::METHOD, modelopt::METHOD, awq::METHOD, gptq::METHOD, fp8::METHOD];

impl Quantization {
    /// What a checkpoint says of itself; none if it is not quantized.
    ///
    /// # Errors
    /// If the configuration is damaged, or of a method that is not supported.
    pub fn of(checkpoint: &Checkpoint) -> Result<Option<Self>, CheckpointError> {
        if checkpoint.format() == Format::Gguf {
            return Ok(None);
        }
        let folder = checkpoint.path();
        let mut found = Self::from_config(checkpoint.config(), &folder.join("config.json"))?;
        let modules = checkpoint.tensors().filter_map(|t| t.name.strip_suffix(".qweight"));
        let with_qweight: HashSet<String> = modules.map(str::to_owned).collect();
        for (name, key, method) in OTHER_FILES {
            let file = folder.join(name);
            // ModelOpt says in its own file what it leaves out of the other: group sizes.
            let fuller = found.as_ref().is_none_or(|found| {
                let silent = !found.has_layers() && found.kv_format.is_none();
                silent || (found.method == method && method == modelopt::METHOD)
            });
            // A file of AutoAWQ or AutoGPTQ may be left over from weights that are 16-bit again.
            let left_over = method != modelopt::METHOD && with_qweight.is_empty();
            if fuller && !left_over && file.is_file() {
                let value = crate::folder::read_object(&file)?;
                let settings = Settings::new(&file, key.map_or(&value, |key| &value[key]));
                let method = settings.text("quant_method")?.unwrap_or(method);
                found = Some(Self::new(&settings, method)?);
            }
        }
        if let Some(quantization) = &mut found {
            quantization.with_qweight = Some(with_qweight);
        }
        Ok(found)
    }

    /// What a `config.json` says; none if the model is not quantized, or another file says it.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub fn from_config(config: &Value, file: &Path) -> Result<Option<Self>, CheckpointError> {
        let keys = ["quantization_config", "compression_config"];
        let Some(value) = keys.iter().find_map(|key| config.get(key).filter(|v| !v.is_null()))
        else {
            return Ok(None);
        };
        let settings = Settings::new(file, value);
        let method = match settings.text("quant_method")? {
            Some(method) => method,
            None if settings.text("quant_algo")?.is_some() => modelopt::METHOD,
            None => compressed_tensors::METHOD,
        };
        Self::new(&settings, method).map(Some)
    }

    fn new(settings: &Settings<'_>, method: &str) -> Result<Self, CheckpointError> {
        let method = METHODS.into_iter().find(|known| *known == method).ok_or_else(|| {
            let known = METHODS.join(", ");
            let problem =
                format!("quantization method `{method}` is not supported; supported: {known}");
            settings.error(problem)
        })?;
        let (rules, kv_format) = match method {
            modelopt::METHOD => modelopt::parse(settings)?,
            awq::METHOD => (awq::parse(settings)?, None),
            gptq::METHOD => (gptq::parse(settings)?, None),
            fp8::METHOD => fp8::parse(settings)?,
            _ => compressed_tensors::parse(settings)?,
        };
        let file = settings.file().to_path_buf();
        Ok(Self { file, method, rules, kv_format, with_qweight: None })
    }

    /// The method, as configurations call it.
    #[must_use]
    pub fn method(&self) -> &'static str {
        self.method
    }

    /// Whether any linear layer is quantized; a checkpoint may have quantized keys and values only.
    #[must_use]
    pub fn has_layers(&self) -> bool {
        self.rules.iter().any(|rule| rule.layout.is_some())
    }

    /// The format of keys and values that the checkpoint was calibrated for.
    #[must_use]
    pub fn kv_format(&self) -> Option<KvFormat> {
        self.kv_format
    }

    /// The scheme of a linear layer of `n` output and `k` input features; none if it is not quantized.
    ///
    /// # Errors
    /// If the layer's format is not supported, or does not fit its size.
    pub fn scheme(
        &self,
        module: &str,
        n: usize,
        k: usize,
    ) -> Result<Option<QuantScheme>, CheckpointError> {
        let Some(format) = self.format(module)? else { return Ok(None) };
        let scheme = format.scheme(n, k);
        scheme.map(Some).map_err(|problem| self.refuse(module, &problem))
    }

    /// The tensors of a linear layer, its bias not among them; none if it is not quantized.
    ///
    /// # Errors
    /// As [`scheme`](Self::scheme).
    pub fn tensors(
        &self,
        module: &str,
        n: usize,
        k: usize,
    ) -> Result<Option<Vec<StoredTensor>>, CheckpointError> {
        let Some(format) = self.format(module)? else { return Ok(None) };
        format.scheme(n, k).map_err(|problem| self.refuse(module, &problem))?;
        let mut tensors = format.tensors(n, k);
        for tensor in &mut tensors {
            tensor.name = format!("{module}.{}", tensor.name);
        }
        Ok(Some(tensors))
    }

    /// Reads a linear layer as it is stored; none if it is not quantized.
    ///
    /// # Errors
    /// As [`scheme`](Self::scheme), and if a tensor is missing, of another type or shape, or holds
    /// numbers that cannot be.
    pub fn linear(
        &self,
        checkpoint: &Checkpoint,
        module: &str,
        n: usize,
        k: usize,
    ) -> Result<Option<QuantizedLinear>, CheckpointError> {
        let Some(format) = self.format(module)? else { return Ok(None) };
        let scheme = format.scheme(n, k).map_err(|problem| self.refuse(module, &problem))?;
        let linear = format.read(&Source { checkpoint, module, n, k })?;
        debug_assert_eq!(linear.weight.scheme(), scheme, "{module} is what was announced");
        Ok(Some(linear))
    }

    /// What reads a layer; none if it is not quantized.
    fn format(&self, module: &str) -> Result<Option<&dyn LayerFormat>, CheckpointError> {
        let format = self.layout(module)?.map(Layout::format).transpose();
        format.map_err(|problem| self.refuse(module, problem))
    }

    /// How a layer is stored; none if it is not quantized.
    fn layout(&self, module: &str) -> Result<Option<&Layout>, CheckpointError> {
        for rule in &self.rules {
            for pattern in &rule.modules {
                let matches = pattern.matches(module);
                if matches.map_err(|problem| self.refuse(module, &problem))? {
                    let stored = |layout: &&Layout| self.is_stored(layout, module);
                    return Ok(rule.layout.as_ref().filter(stored));
                }
            }
        }
        Ok(None)
    }

    /// AutoAWQ's and GPTQ's lists of layers are read in several ways; what is stored decides.
    fn is_stored(&self, layout: &Layout, module: &str) -> bool {
        match (&self.with_qweight, layout) {
            (Some(modules), Layout::Awq(_) | Layout::Gptq(_)) => modules.contains(module),
            _ => true,
        }
    }

    fn refuse(&self, module: &str, problem: &str) -> CheckpointError {
        let problem = format!("{} layer `{module}`: {problem}", self.method);
        CheckpointError::Quantization { file: self.file.clone(), problem }
    }
}

impl StoredTensor {
    /// A tensor that must be there.
    fn required(name: &str, shape: &[usize]) -> Self {
        Self { name: name.to_owned(), shapes: vec![shape.to_vec()], optional: false }
    }

    /// A tensor of one number that must be there.
    fn scalar(name: &str) -> Self {
        Self::required(name, &[]).or(&[1])
    }

    /// The same in another shape.
    fn or(mut self, shape: &[usize]) -> Self {
        self.shapes.push(shape.to_vec());
        self
    }

    /// The same, but the layer can do without it.
    fn if_present(self) -> Self {
        Self { optional: true, ..self }
    }
}

/// The group of `size` weights along K, if kernels can work with it.
fn group_of(size: usize, k: usize) -> Result<Group, String> {
    if size == k {
        return Ok(Group::PerChannel);
    }
    if size > 0 && size.is_multiple_of(4) && k.is_multiple_of(size) {
        return Ok(Group::Of(size));
    }
    Err(format!(
        "groups of {size} along {k} input features are not supported; \
         supported: a multiple of 4 that divides them"
    ))
}

/// What is not supported, and what is.
fn unsupported(what: &str, supported: &str) -> Layout {
    Layout::Unsupported(format!("{what} is not supported; supported: {supported}"))
}

/// The activations that integer formats of 16-bit inputs meet.
const WEIGHT_ONLY: ActivationFormat = ActivationFormat::BF16;
