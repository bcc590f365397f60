//! What calibration remembers of a site's inputs: one pass, no second look at the data.

use bantam_backend::Backend;

use crate::gram::GramCollector;
use crate::{Gram, Histogram, OptimizeError, TokenSample};

/// Which statistics to collect beyond the cheap ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatisticsOptions {
    /// The Gram matrix: K² numbers, and 2·K² operations a token. AWQ, clipping and GPTQ need it.
    pub gram: bool,
    /// The histogram of magnitudes, for percentile, MSE and entropy ranges.
    pub histogram: bool,
    /// Input rows to keep for judging what changes do, besides the 16 largest; 0 for none.
    pub sample: usize,
}

impl StatisticsOptions {
    /// What either needs.
    pub(crate) fn union(self, other: Self) -> Self {
        Self {
            gram: self.gram || other.gram,
            histogram: self.histogram || other.histogram,
            sample: self.sample.max(other.sample),
        }
    }
}

impl Default for StatisticsOptions {
    /// All of them, and 512 rows.
    fn default() -> Self {
        Self { gram: true, histogram: true, sample: 512 }
    }
}

/// Collects [`InputStatistics`] from batches of input rows.
///
/// ```
/// use bantam_backend::reference::Reference;
/// use bantam_optimize::{StatisticsCollector, StatisticsOptions};
/// let mut collector = StatisticsCollector::new(&Reference, 2, StatisticsOptions::default())?;
/// collector.add(&[1.0, -2.0, 3.0, 0.0])?; // two tokens of two channels
/// let statistics = collector.finish()?;
/// assert_eq!(statistics.amax, [3.0, 2.0]);
/// assert_eq!(statistics.mean_abs, [2.0, 1.0]);
/// assert_eq!(statistics.gram()?.values(), [5.0, -1.0, -1.0, 2.0]);
/// # Ok::<(), bantam_optimize::OptimizeError>(())
/// ```
pub struct StatisticsCollector<'a, B: Backend> {
    k: usize,
    amax: Vec<f32>,
    sum_abs: Vec<f64>,
    sum_squares: Vec<f64>,
    token_amax: Vec<f32>,
    histogram: Option<Histogram>,
    sample: TokenSample,
    gram: Option<GramCollector<'a, B>>,
}

/// Rows whose magnitudes and squares are summed in f32 before they join the f64 sums.
const ROWS: usize = 256;

impl<'a, B: Backend> StatisticsCollector<'a, B> {
    /// Statistics of inputs with `k` channels.
    ///
    /// # Errors
    /// If `k` is 0, or the back end cannot hold a Gram matrix of this size.
    pub fn new(
        backend: &'a B,
        k: usize,
        options: StatisticsOptions,
    ) -> Result<Self, OptimizeError> {
        if k == 0 {
            let (got, expected) = ("0".to_owned(), "1 or more".to_owned());
            return Err(OptimizeError::Option { option: "input channels", got, expected });
        }
        Ok(Self {
            k,
            amax: vec![0.0; k],
            sum_abs: vec![0.0; k],
            sum_squares: vec![0.0; k],
            token_amax: Vec::new(),
            histogram: options.histogram.then(Histogram::default),
            sample: TokenSample::new(k, options.sample),
            gram: options.gram.then(|| GramCollector::new(backend, k)).transpose()?,
        })
    }

    /// Adds input rows `x: [T, K]`. Leave padding out: every row counts.
    ///
    /// # Errors
    /// If they are not whole rows, or a value is NaN or infinite.
    pub fn add(&mut self, x: &[f32]) -> Result<(), OptimizeError> {
        OptimizeError::check_length("input past whole rows", x.len() % self.k, 0)?;
        // In pieces without an early end, which become vector code.
        let finite = |piece: &&[f32]| piece.iter().fold(true, |all, v| all & v.is_finite());
        if let Some(piece) = x.chunks(ROWS).position(|piece| !finite(&piece)) {
            let i = piece * ROWS
                + x[piece * ROWS..].iter().position(|v| !v.is_finite()).unwrap_or_default();
            let (token, channel) = (self.token_amax.len() + i / self.k, i % self.k);
            return Err(OptimizeError::NonFiniteInput { token, channel, value: x[i] });
        }
        let mut sums = vec![[0f32; 2]; self.k];
        for rows in x.chunks(ROWS * self.k) {
            sums.fill([0.0; 2]);
            for row in rows.chunks_exact(self.k) {
                for ((amax, [sum, squares]), value) in self.amax.iter_mut().zip(&mut sums).zip(row)
                {
                    *amax = amax.max(value.abs());
                    *sum += value.abs();
                    *squares += value * value;
                }
                let largest = row.iter().fold(0f32, |largest, v| largest.max(v.abs()));
                self.token_amax.push(largest);
                self.sample.add(row, largest);
            }
            let all = self.sum_abs.iter_mut().zip(&mut self.sum_squares);
            for ((sum_abs, sum_squares), &[sum, squares]) in all.zip(&sums) {
                *sum_abs += f64::from(sum);
                *sum_squares += f64::from(squares);
            }
        }
        if let Some(histogram) = &mut self.histogram {
            histogram.add(x);
        }
        self.gram.as_mut().map_or(Ok(()), |gram| gram.add(x))
    }

    /// The statistics of all rows.
    ///
    /// # Errors
    /// If there were no rows, or squares overflowed.
    pub fn finish(self) -> Result<InputStatistics, OptimizeError> {
        let tokens = self.token_amax.len();
        if tokens == 0 {
            return Err(OptimizeError::NoTokens);
        }
        let mean_square = means(&self.sum_squares, tokens);
        if let Some(channel) = mean_square.iter().position(|square| !square.is_finite()) {
            let (row, column, value) = (channel, channel, mean_square[channel]);
            return Err(OptimizeError::NonFiniteGram { row, column, value });
        }
        Ok(InputStatistics {
            amax: self.amax,
            mean_abs: means(&self.sum_abs, tokens),
            mean_square,
            token_amax: self.token_amax,
            histogram: self.histogram,
            sample: self.sample,
            gram: self.gram.map(|gram| gram.finish(tokens)).transpose()?,
        })
    }
}

fn means(sums: &[f64], count: usize) -> Vec<f32> {
    sums.iter().map(|sum| (sum / count as f64) as f32).collect()
}

/// What calibration remembers of the inputs of one site: K channels over all tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct InputStatistics {
    /// `max_t |x_tk|` of each channel, `[K]`.
    pub amax: Vec<f32>,
    /// `mean_t |x_tk|` of each channel, `[K]`.
    pub mean_abs: Vec<f32>,
    /// `mean_t x_tk²` of each channel, `[K]`: the diagonal of the Gram matrix.
    pub mean_square: Vec<f32>,
    /// `max_k |x_tk|` of each token, in the order they came.
    pub token_amax: Vec<f32>,
    /// How magnitudes are distributed, if it was asked for.
    pub histogram: Option<Histogram>,
    /// Some input rows.
    pub sample: TokenSample,
    gram: Option<Gram>,
}

impl InputStatistics {
    /// K, channels.
    #[must_use]
    pub fn k(&self) -> usize {
        self.amax.len()
    }

    /// Tokens seen.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.token_amax.len()
    }

    /// The largest magnitude of all.
    #[must_use]
    pub fn largest(&self) -> f32 {
        self.amax.iter().copied().fold(0.0, f32::max)
    }

    /// The mean squares of inputs whose channels are multiplied by `factors: [K]`.
    #[must_use]
    pub(crate) fn mean_square_for(&self, factors: &[f32]) -> Vec<f32> {
        self.mean_square.iter().zip(factors).map(|(square, p)| square * p * p).collect()
    }

    /// The Gram matrix.
    ///
    /// # Errors
    /// If it was not asked for.
    pub fn gram(&self) -> Result<&Gram, OptimizeError> {
        let missing = || OptimizeError::MissingStatistic {
            algorithm: "this algorithm",
            statistic: "the Gram matrix",
        };
        self.gram.as_ref().ok_or_else(missing)
    }
}
