//! What each algorithm leaves of the error of a real model's sites, on text that it was not
//! calibrated on: the measurements behind the defaults.
//!
//! `cargo run --release -p bantam-optimize --example site_errors MODEL TEXT [LAYER...]`

use std::error::Error;
use std::path::Path;

use bantam_backend::Backend;
use bantam_checkpoint::Checkpoint;
use bantam_cpu::{Cpu, CpuOptions};
use bantam_model::{ArchSpec, Block, BlockRunner, BlockWeights, LinearRole, Tap};
use bantam_numerics::{ActivationFormat, Group, QuantScheme, ScaleBlock, WeightFormat};
use bantam_optimize::{
    ActivationScale, AwqOptions, ChannelTies, ColumnOrder, FactorTrial, Gptq, GptqOptions, Gram,
    GroupScales, InputStatistics, OptimizeError, OutputError, RangeRule, Rounding,
    SmoothQuantOptions, StatisticsCollector, StatisticsOptions, WeightMatrix, awq, clip, gptq,
    outliers, round_to_nearest, smoothquant,
};
use bantam_text::Tokenizer;

/// Tokens of a sequence, and sequences to calibrate on and to judge by.
const SEQUENCE: usize = 512;
const CALIBRATED: usize = 24;
const JUDGED: usize = 8;

const ROLES: [LinearRole; 4] = [
    LinearRole::Qkv,
    LinearRole::AttentionOut,
    LinearRole::FeedForwardIn,
    LinearRole::FeedForwardOut,
];

/// Collects the statistics of a block's four sites.
struct Collectors<'a>(Vec<StatisticsCollector<'a, Cpu>>);

impl<'a> Collectors<'a> {
    fn new(cpu: &'a Cpu, block: &BlockWeights) -> Result<Self, OptimizeError> {
        let collectors = block.linears.iter().map(|linear| {
            StatisticsCollector::new(cpu, linear.stored.k, StatisticsOptions::default())
        });
        Ok(Self(collectors.collect::<Result<_, _>>()?))
    }

    fn finish(self) -> Result<Vec<InputStatistics>, OptimizeError> {
        self.0.into_iter().map(StatisticsCollector::finish).collect()
    }
}

impl Tap<Cpu> for Collectors<'_> {
    fn linear_input(&mut self, cpu: &Cpu, role: LinearRole, x: &<Cpu as Backend>::Operand) {
        if let Some(site) = ROLES.iter().position(|other| *other == role) {
            self.0[site].add(&cpu.read_operand(x)).expect("finite activations");
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, text, layers @ ..] = arguments.as_slice() else {
        return Err("usage: site_errors MODEL TEXT [LAYER...]".into());
    };
    let layers: Vec<usize> = layers.iter().map(|layer| layer.parse()).collect::<Result<_, _>>()?;
    let checkpoint = Checkpoint::open(Path::new(model))?;
    let arch = ArchSpec::from_checkpoint(&checkpoint)?;
    let tokenizer = Tokenizer::load(&checkpoint.tokenizer_source()?)?;
    let text = std::fs::read_to_string(text)?;
    // Enough characters for the tokens.
    let characters = 8 * SEQUENCE * (CALIBRATED + JUDGED);
    let text: String = text.chars().take(characters).collect();
    let tokens = tokenizer.encode(&text, bantam_text::EncodeOptions::default())?;
    let cpu = Cpu::new(CpuOptions::default())?;
    let mut runner = BlockRunner::new(&cpu, &arch, SEQUENCE)?;
    let sequences = tokens.chunks_exact(SEQUENCE).take(CALIBRATED + JUDGED);
    let mut hidden: Vec<Vec<f32>> =
        sequences.map(|tokens| runner.embed(&checkpoint, tokens)).collect::<Result<_, _>>()?;
    for layer in 0..arch.sizes.layers {
        let weights = BlockWeights::read(&checkpoint, &arch, layer)?;
        let block = Block::new(&cpu, arch.norm, &weights, [None; 4], QuantScheme::BF16)?;
        if !layers.contains(&layer) {
            hidden.iter_mut().try_for_each(|stream| runner.run(&block, layer, stream, &mut ()))?;
            continue;
        }
        let (calibrated, judged) = hidden.split_at_mut(CALIBRATED);
        let mut statistics = Vec::new();
        for streams in [calibrated, judged] {
            let mut collectors = Collectors::new(&cpu, &weights)?;
            streams.iter_mut().try_for_each(|s| runner.run(&block, layer, s, &mut collectors))?;
            statistics.push(collectors.finish()?);
        }
        for (site, linear) in weights.linears.iter().enumerate() {
            let (n, k) = (linear.stored.n, linear.stored.k);
            let weight = WeightMatrix::new(&linear.weight, n, k)?;
            let heads = &arch.attention;
            let ties = (ROLES[site] == LinearRole::AttentionOut)
                .then(|| ChannelTies::grouped_heads(heads.heads, heads.kv_heads, heads.head_dim));
            let outliers = outliers(&statistics[0][site], None)?;
            println!(
                "layer {layer} {:?} [{n}, {k}], outliers {:.0}",
                ROLES[site],
                outliers.ratio()
            );
            let site = Site {
                cpu: &cpu,
                weight,
                calibrated: &statistics[0][site],
                error: OutputError::new(&cpu, statistics[1][site].gram()?)?,
                ties,
            };
            site.report()?;
        }
        if layers.iter().all(|other| *other <= layer) {
            break;
        }
    }
    Ok(())
}

/// A site, what it was calibrated on, and what it is judged by.
struct Site<'a> {
    cpu: &'a Cpu,
    weight: WeightMatrix<'a>,
    calibrated: &'a InputStatistics,
    error: OutputError<'a, Cpu>,
    ties: Option<ChannelTies>,
}

const ACTIVATION: ActivationFormat = ActivationFormat::BF16;

impl Site<'_> {
    fn report(mut self) -> Result<(), OptimizeError> {
        for symmetric in [true, false] {
            self.four_bits(WeightFormat::Int4 { group: Group::Of(64), symmetric })?;
        }
        let per_channel = WeightFormat::Int8 { group: Group::PerChannel };
        let fp8 = [ScaleBlock::TENSOR, ScaleBlock::CHANNEL, ScaleBlock::SQUARE];
        let fp8 = fp8.map(|block| WeightFormat::Fp8 { block });
        for format in [per_channel].into_iter().chain(fp8) {
            let mut line = format!("  {format:<14}");
            for (range, name) in
                [(RangeRule::Max, "max"), (RangeRule::LeastSquares, "least squares")]
            {
                let rounding = Rounding { range, ..Rounding::new(format) };
                let error = self.nearest(rounding, self.weight.values(), None)?;
                line += &format!("{name} {error:.2e}  ");
            }
            let made = self.gptq(&GptqOptions::new(Rounding::new(format)), None)?;
            println!("{line}GPTQ {made:.2e}");
        }
        for scale in [ActivationScale::PerToken, ActivationScale::Static] {
            let options = SmoothQuantOptions {
                scale,
                ties: self.ties.clone(),
                ..SmoothQuantOptions::default()
            };
            let found = smoothquant(self.cpu, self.weight, self.calibrated, &options)?;
            let near = |alpha: f32| {
                let distance = |trial: &&FactorTrial| (trial.alpha - alpha).abs();
                let trials = found.trials[1..].iter();
                trials.min_by(|a, b| distance(a).total_cmp(&distance(b))).map_or(0.0, |t| t.error)
            };
            let (none, half, whole) = (found.trials[0].error, near(0.5), near(1.0));
            let best = found.best;
            println!(
                "  W8A8 {scale:?}: none {none:.2e}  α=½ {half:.2e}  α=1 {whole:.2e}  best {:.2e} at {:?}",
                best.error, best.alpha
            );
        }
        Ok(())
    }

    fn four_bits(&mut self, format: WeightFormat) -> Result<(), OptimizeError> {
        let gram = self.calibrated.gram()?;
        let plain = self.weight.values();
        let mut line = format!("  {format:<14}");
        for (range, name) in [(RangeRule::Max, "max"), (RangeRule::FullRange, "full")] {
            let rounding = Rounding { range, ..Rounding::new(format) };
            line += &format!("{name} {:.2e}  ", self.nearest(rounding, plain, None)?);
        }
        let rounding = Rounding::new(format);
        line += &format!("least squares {:.2e}  ", self.nearest(rounding, plain, None)?);
        let clipped = clip(self.cpu, self.weight, gram, rounding, ACTIVATION)?.decode();
        let [error] = self.error.relative(self.weight, [&clipped])?;
        println!("{line}clip {error:.2e}");
        let mut line = "                ".to_owned();
        for (range, name) in [(RangeRule::Max, "max"), (RangeRule::LeastSquares, "least squares")] {
            let rounding = Rounding { range, ..rounding };
            let options = AwqOptions { ties: self.ties.clone(), ..AwqOptions::new(rounding) };
            let found = awq(self.cpu, self.weight, self.calibrated, &options)?;
            let scaled = self.weight.for_factors(&found.factors)?;
            let error = self.nearest(rounding, &scaled, Some(&found.factors))?;
            let gram = gram.for_factors(&found.factors)?;
            let matrix = WeightMatrix::new(&scaled, self.weight.n(), self.weight.k())?;
            let clipped = clip(self.cpu, matrix, &gram, rounding, ACTIVATION)?;
            let clipped = self.unscaled(clipped.decode(), Some(&found.factors))?;
            let best = found.best;
            line += &format!(
                "AWQ({name}) {error:.2e} {:?} {:.2} clip {clipped:.2e}  ",
                best.formula, best.alpha
            );
            if range == RangeRule::LeastSquares {
                let made = self.gptq(&GptqOptions::new(rounding), Some(&found.factors))?;
                line += &format!("GPTQ {made:.2e}");
            }
        }
        println!("{line}");
        let mut line = "                GPTQ ".to_owned();
        for order in [ColumnOrder::Stored, ColumnOrder::Activation] {
            for groups in [GroupScales::Static, GroupScales::Dynamic] {
                let options = GptqOptions { order, groups, ..GptqOptions::new(rounding) };
                let made = self.gptq(&options, None)?;
                line += &format!("{order:?} {groups:?} {made:.2e}  ");
            }
        }
        for damping in [0.001, 0.05] {
            let options = GptqOptions { damping, ..GptqOptions::new(rounding) };
            line += &format!("λ {damping} {:.2e}  ", self.gptq(&options, None)?);
        }
        println!("{line}");
        Ok(())
    }

    fn importance(&self, factors: Option<&[f32]>) -> Result<Gram, OptimizeError> {
        let gram = self.calibrated.gram()?;
        factors.map_or_else(|| Ok(gram.clone()), |factors| gram.for_factors(factors))
    }

    fn nearest(
        &mut self,
        rounding: Rounding,
        values: &[f32],
        factors: Option<&[f32]>,
    ) -> Result<f64, OptimizeError> {
        let matrix = WeightMatrix::new(values, self.weight.n(), self.weight.k())?;
        let diagonal = self.importance(factors)?.diagonal();
        let packed = round_to_nearest(matrix, rounding, ACTIVATION, Some(&diagonal))?;
        self.unscaled(packed.decode(), factors)
    }

    fn gptq(
        &mut self,
        options: &GptqOptions,
        factors: Option<&[f32]>,
    ) -> Result<f64, OptimizeError> {
        let k = self.weight.k();
        let scaled = factors.map(|factors| self.weight.for_factors(factors)).transpose()?;
        let values = scaled.as_deref().unwrap_or(self.weight.values());
        let matrix = WeightMatrix::new(values, self.weight.n(), k)?;
        let Gptq { linear, .. } = gptq(matrix, &self.importance(factors)?, options, ACTIVATION)?;
        let mut values = linear.weight.decode();
        if let Some(order) = &linear.input.order {
            let sorted = values.clone();
            for (row, sorted) in values.chunks_exact_mut(k).zip(sorted.chunks_exact(k)) {
                order.iter().zip(sorted).for_each(|(&to, &value)| row[to as usize] = value);
            }
        }
        self.unscaled(values, factors)
    }

    /// The error of a weight whose input is multiplied by factors.
    fn unscaled(
        &mut self,
        mut values: Vec<f32>,
        factors: Option<&[f32]>,
    ) -> Result<f64, OptimizeError> {
        if let Some(factors) = factors {
            for row in values.chunks_exact_mut(factors.len()) {
                row.iter_mut().zip(factors).for_each(|(value, p)| *value *= p);
            }
        }
        self.error.relative(self.weight, [&values]).map(|[error]| error)
    }
}
