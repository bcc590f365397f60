//! Model files: where they lie, what they hold, and how to read one tensor of them.
//!
//! [`Checkpoint::open`] opens a Hugging Face folder (safetensors) or a GGUF file, checks every header
//! field against the file before it is used, and shows both alike: tensors under their Hugging Face
//! names, and a Hugging Face `config.json`. [`fetch::resolve`] turns what a user types
//! (a path, `smollm2`, `org/model`) into such a path.
//!
//! ```no_run
//! use bantam_checkpoint::{Checkpoint, fetch};
//!
//! let path = fetch::resolve("smollm2", &mut |event| eprintln!("{event}"))?;
//! let checkpoint = Checkpoint::open(&path)?;
//! let norm = checkpoint.tensor("model.norm.weight")?.to_f32()?;
//! println!("{} parameters, hidden size {}", checkpoint.parameters(), norm.len());
//! # Ok::<(), bantam_checkpoint::CheckpointError>(())
//! ```
//!
//! Where to change what: `locate` decides which files a path means (`what_it_is` names what is none), `names` puts tensor
//! names right, `safetensors` and `gguf` read
//! the two formats, `gguf::names` holds the table of tensor names, `fetch` finds and downloads.

mod checkpoint;
mod error;
pub mod fetch;
mod folder;
mod gguf;
mod locate;
mod model_file;
mod names;
mod packing;
mod printable;
mod quantized;
mod safetensors;
mod suggest;
mod tensor;
mod what_it_is;
pub mod write;

pub use bantam_text::python_json;
pub use checkpoint::{Checkpoint, Format};
pub use error::CheckpointError;
pub use printable::printable;
pub use quantized::{Quantization, StoredTensor, fits_glob};
pub use suggest::{nearest, suggestion};
pub use tensor::{RowOrder, TensorView};
pub use write::{Dialect, ShardWriter};
