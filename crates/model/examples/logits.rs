//! Prints the logits of all positions of a sequence, `[T, V]`, as JSON: by the reference back end in f32,
//! for tools that hold theirs against them.
//!
//! ```text
//! cargo run -p bantam-model --example logits -- FOLDER TOKEN...
//! ```

use std::path::Path;

use bantam_backend::{Batch, reference::Reference};
use bantam_checkpoint::Checkpoint;
use bantam_model::{Decoder, LoadOptions, Precision};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("usage: logits FOLDER TOKEN...")?;
    let tokens = arguments.map(|id| id.parse()).collect::<Result<Vec<u32>, _>>()?;
    let options = LoadOptions {
        precision: Precision::F32,
        max_context: Some(tokens.len()),
        max_logit_rows: tokens.len(),
        ..LoadOptions::default()
    };
    let checkpoint = Checkpoint::open(Path::new(&folder))?;
    let mut decoder = Decoder::load(Reference, &checkpoint, &options, &|_| {})?;
    let blocks: Vec<u32> = (0..decoder.num_blocks() as u32).collect();
    let mut batch = Batch::default();
    batch.push(&tokens, 0, &blocks)?;
    batch.want_all_logits();
    let logits = decoder.forward(&batch)?;
    let rows: Vec<&[f32]> = logits.chunks_exact(decoder.arch().sizes.vocabulary).collect();
    println!("{}", serde_json::to_string(&rows)?);
    Ok(())
}
