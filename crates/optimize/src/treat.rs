//! One block: from its weights and what calibration saw of their inputs to quantized layers.

use bantam_backend::{Backend, LinearInput, QuantizedLinear};
use bantam_model::{ArchSpec, BlockWeights};
use bantam_numerics::activation::normal_scale;
use bantam_numerics::{ActivationFormat, PackedWeight, WeightFormat};

use crate::fold::{VectorType, fold, ties};
use crate::report::SiteReport;
use crate::{
    ActivationScale, AwqOptions, Calibrator, ChannelTies, FactorFormula, FactorMethod, FactorTrial,
    GptqOptions, Gram, InputStatistics, OptimizeError, OutputError, RangeRule, RangeVerdict,
    RoundMethod, Rounding, ScaleChoice, ScalePrecision, SmoothQuantOptions, StatisticsOptions,
    Treatment, WeightMatrix, awq, clip, gptq, outliers, round_to_nearest, smoothquant,
};

/// Input rows that are kept where errors are measured on them.
pub(crate) const SAMPLED_ROWS: usize = 512;

/// What a treatment needs to know of the inputs.
pub(crate) fn needed_statistics(treatment: &Treatment) -> StatisticsOptions {
    let by_histogram = !matches!(treatment.scale, ScaleChoice::Token | ScaleChoice::Max);
    let gram = treatment.factors == FactorMethod::Awq
        || matches!(treatment.round, RoundMethod::Gptq | RoundMethod::Clip);
    StatisticsOptions {
        gram,
        histogram: by_histogram,
        // The report's errors are measured on the one or the other.
        sample: if gram && !treatment.scheme.activation.is_scaled() { 0 } else { SAMPLED_ROWS },
    }
}

/// A block whose layers are quantized.
pub(crate) struct TreatedBlock {
    /// In full precision, with factors folded in: norms and biases are final.
    pub(crate) weights: BlockWeights,
    /// The parts of each site that is quantized.
    pub(crate) quantized: [Option<Vec<QuantizedLinear>>; 4],
    /// One for each site.
    pub(crate) reports: Vec<SiteReport>,
}

/// How scales are kept, and the type of norms, in what is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoredTypes {
    pub(crate) scales: ScalePrecision,
    pub(crate) vectors: VectorType,
}

/// Quantizes a block. A site without a treatment or without statistics stays as it is.
pub(crate) fn treat<B: Backend>(
    backend: &B,
    arch: &ArchSpec,
    mut weights: BlockWeights,
    plan: &[Option<Treatment>; 4],
    statistics: &[Option<InputStatistics>; 4],
    types: StoredTypes,
) -> Result<TreatedBlock, OptimizeError> {
    // Factors first: those of one site change the rows of another.
    let mut factors: [Option<Factors>; 4] = Default::default();
    for site in 0..4 {
        let (Some(treatment), Some(statistics)) = (&plan[site], &statistics[site]) else {
            continue;
        };
        let linear = &weights.linears[site];
        let weight = WeightMatrix::new(&linear.weight, linear.stored.n, linear.stored.k)?;
        let found = find_factors(backend, weight, statistics, treatment, ties(arch, site))?;
        factors[site] = found.map(|found| Factors {
            values: fold(&mut weights, arch, site, &found.values, types.vectors),
            ..found
        });
    }
    let (mut quantized, mut reports) = ([const { None }; 4], Vec::with_capacity(4));
    for site in 0..4 {
        let linear = &weights.linears[site];
        let modules = linear.stored.parts.iter().map(|part| part.module.clone()).collect();
        let mut report = SiteReport::new(modules, linear.stored.n, linear.stored.k);
        if let Some(treatment) = &plan[site] {
            let treated = Site { backend, treatment, statistics: statistics[site].as_ref(), types }
                .quantize(&weights, site, factors[site].as_ref(), &mut report)?;
            quantized[site] = Some(treated);
        }
        reports.push(report);
    }
    Ok(TreatedBlock { weights, quantized, reports })
}

/// Factors on the input channels of a site, and how they were found.
struct Factors {
    values: Vec<f32>,
    found: String,
}

fn find_factors<B: Backend>(
    backend: &B,
    weight: WeightMatrix<'_>,
    statistics: &InputStatistics,
    treatment: &Treatment,
    ties: Option<ChannelTies>,
) -> Result<Option<Factors>, OptimizeError> {
    let rounding = Rounding::new(treatment.scheme.weight);
    let found = match treatment.factors {
        FactorMethod::Nothing => return Ok(None),
        FactorMethod::Awq => {
            let options = AwqOptions { ties, ..AwqOptions::new(rounding) };
            awq(backend, weight, statistics, &options)?
        }
        FactorMethod::SmoothQuant => {
            let scale = match treatment.scale {
                ScaleChoice::Token => ActivationScale::PerToken,
                _ => ActivationScale::Static,
            };
            let (activation, defaults) = (treatment.scheme.activation, SmoothQuantOptions::new());
            let rounding = Rounding { range: defaults.rounding.range, ..rounding };
            let options = SmoothQuantOptions { rounding, activation, scale, ties, ..defaults };
            smoothquant(backend, weight, statistics, &options)?
        }
    };
    let FactorTrial { formula, alpha, .. } = found.best;
    let how = match formula {
        FactorFormula::None => return Ok(None),
        FactorFormula::Plain => format!("{} plain α={alpha:.2}", treatment.factors),
        FactorFormula::Duo => format!("{} α={alpha:.2}", treatment.factors),
    };
    Ok(Some(Factors { values: found.factors, found: how }))
}

/// A site's inputs as it reads them, with its factors in them.
struct SiteInputs {
    /// The mean square of each channel, `[K]`.
    importance: Vec<f32>,
    gram: Option<Gram>,
    /// Rows `[_, K]` to measure errors on where there is no Gram matrix.
    rows: Vec<f32>,
}

impl SiteInputs {
    fn new(statistics: &InputStatistics, factors: Option<&Factors>) -> Result<Self, OptimizeError> {
        let gram = statistics.gram().ok();
        let mut rows =
            if gram.is_some() { Vec::new() } else { statistics.sample.even_rows().to_vec() };
        let Some(Factors { values: factors, .. }) = factors else {
            let importance = statistics.mean_square.clone();
            return Ok(Self { importance, gram: gram.cloned(), rows });
        };
        for row in rows.chunks_exact_mut(factors.len()) {
            row.iter_mut().zip(factors).for_each(|(value, p)| *value *= p);
        }
        let gram = gram.map(|gram| gram.for_factors(factors)).transpose()?;
        Ok(Self { importance: statistics.mean_square_for(factors), gram, rows })
    }

    /// What measures errors on them.
    fn output_error<B: Backend>(
        self,
        backend: &B,
        k: usize,
    ) -> Result<OutputError<'_, B>, OptimizeError> {
        match &self.gram {
            Some(gram) => OutputError::new(backend, gram),
            None => OutputError::on_rows(backend, self.rows, k),
        }
    }
}

/// One site on its way.
struct Site<'a, B: Backend> {
    backend: &'a B,
    treatment: &'a Treatment,
    statistics: Option<&'a InputStatistics>,
    types: StoredTypes,
}

impl<B: Backend> Site<'_, B> {
    fn quantize(
        &self,
        weights: &BlockWeights,
        site: usize,
        factors: Option<&Factors>,
        report: &mut SiteReport,
    ) -> Result<Vec<QuantizedLinear>, OptimizeError> {
        let linear = &weights.linears[site];
        let (n, k) = (linear.stored.n, linear.stored.k);
        let weight = WeightMatrix::new(&linear.weight, n, k)?;
        let inputs = self.statistics.map(|seen| SiteInputs::new(seen, factors)).transpose()?;
        let rows: Vec<usize> = linear
            .stored
            .parts
            .iter()
            .map(|part| part.taken.iter().map(ExactSizeIterator::len).sum())
            .collect();
        let packed = self.round(weight, inputs.as_ref(), &rows, report)?;
        let input = self.input(factors)?;
        report.scheme = Some(self.treatment.scheme.to_string());
        report.static_scale = input.scale;
        report.factors = factors.map(|factors| factors.found.clone());
        let spread = self.statistics.map(|statistics| outliers(statistics, None)).transpose()?;
        report.outlier_ratio = spread.map(|spread| spread.ratio());
        report.bytes = packed.iter().map(|part| part.bytes() as u64).sum();
        if let Some(inputs) = inputs {
            let decoded: Vec<f32> = packed.iter().flat_map(PackedWeight::decode).collect();
            let rounding = Rounding { range: RangeRule::Max, ..self.rounding() };
            let nearest = round_to_nearest(weight, rounding, ActivationFormat::BF16, None)?;
            let mut errors = inputs.output_error(self.backend, k)?;
            let [error, of_nearest] = errors.relative(weight, [&decoded, &nearest.decode()])?;
            (report.error, report.error_of_nearest) = (Some(error), Some(of_nearest));
        }
        Ok(packed
            .into_iter()
            .map(|weight| QuantizedLinear { weight, input: input.clone() })
            .collect())
    }

    /// Groups of 4 bits keep their whole range where no data says which channels matter: to clip the
    /// wrong large weight costs more than finer steps save (docs/reference/accuracy.md).
    fn rounding(&self) -> Rounding {
        let best = Rounding::new(self.treatment.scheme.weight);
        let range = match (best.format, self.statistics) {
            (WeightFormat::Int4 { .. }, None) => RangeRule::Max,
            _ => best.range,
        };
        Rounding { scales: self.types.scales, range, ..best }
    }

    /// The codes of all parts, which have `rows` output features each.
    fn round(
        &self,
        weight: WeightMatrix<'_>,
        inputs: Option<&SiteInputs>,
        rows: &[usize],
        report: &mut SiteReport,
    ) -> Result<Vec<PackedWeight>, OptimizeError> {
        match self.rounding().format {
            // Scales must not reach from one part into the next.
            WeightFormat::Fp8 { block } if block.rows != 1 => {
                let mut first = 0;
                let part = |&n: &usize| {
                    let values = &weight.values()[first * weight.k()..][..n * weight.k()];
                    first += n;
                    self.round_one(WeightMatrix::new(values, n, weight.k())?, inputs, report)
                };
                rows.iter().map(part).collect()
            }
            _ => Ok(self.round_one(weight, inputs, report)?.split_rows(rows)),
        }
    }

    fn round_one(
        &self,
        weight: WeightMatrix<'_>,
        inputs: Option<&SiteInputs>,
        report: &mut SiteReport,
    ) -> Result<PackedWeight, OptimizeError> {
        let (rounding, activation) = (self.rounding(), self.treatment.scheme.activation);
        match (self.treatment.round, inputs.and_then(|inputs| inputs.gram.as_ref())) {
            (RoundMethod::Gptq, Some(gram)) => {
                let found = gptq(weight, gram, &GptqOptions::new(rounding), activation)?;
                report.damping = Some(found.damping);
                Ok(found.linear.weight)
            }
            (RoundMethod::Clip, Some(gram)) => {
                clip(self.backend, weight, gram, rounding, activation)
            }
            _ => {
                let importance = inputs.map(|inputs| inputs.importance.as_slice());
                round_to_nearest(weight, rounding, activation, importance)
            }
        }
    }

    /// What the layer asks of its input. Where massive activations leave other tokens few INT8 codes
    /// of a static range, tokens get scales of their own.
    fn input(&self, factors: Option<&Factors>) -> Result<LinearInput<Vec<f32>>, OptimizeError> {
        let format = self.treatment.scheme.activation;
        let mut input = LinearInput::new(format);
        let calibrator = match self.treatment.scale {
            ScaleChoice::Token => return Ok(input),
            ScaleChoice::Max => Calibrator::Max,
            ScaleChoice::Mse => Calibrator::Mse,
            ScaleChoice::Entropy => Calibrator::Entropy,
            ScaleChoice::Percentile => Calibrator::Percentile(99.99),
        };
        let Some(statistics) = self.statistics else { return Ok(input) };
        let factors = factors.map(|factors| factors.values.as_slice());
        let integers = format == ActivationFormat::Int8;
        if integers && outliers(statistics, factors)?.verdict == RangeVerdict::PerToken {
            return Ok(input);
        }
        input.scale = Some(match factors {
            None => calibrator.scale(statistics, format)?,
            Some(factors) => {
                let scaled = statistics.amax.iter().zip(factors).map(|(amax, p)| amax * p);
                let largest_code = format.largest_code().unwrap_or(1.0);
                normal_scale(scaled.fold(0f32, f32::max) / largest_code)
            }
        });
        Ok(input)
    }
}
