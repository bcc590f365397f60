//! The recipe `auto`: what each format of each layer costs the model, and the rules that follow.
//!
//! Sites are quantized one at a time, everything else staying as it was, and the model runs on from
//! there. The source is ModelOpt's AutoQuantize; where that multiplies changes of outputs with
//! gradients, here the change itself is followed: to the end of the block, or to the predictions.

use std::path::PathBuf;
use std::time::Instant;

use bantam_backend::Backend;
use bantam_model::{ArchSpec, Block, BlockRunner, BlockWeights, Head};
use bantam_numerics::Softmax;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::collect::Collect;
use crate::pipeline::KEPT;
use crate::recipe::{AutoFormats, LayerPatterns};
use crate::report::{FormatChoice, FormatReport, SiteFormats};
use crate::treat::{needed_statistics, treat};
use crate::trial::relative_square;
use crate::{
    Choice, FormatScore, GroupChoice, Job, OptimizeError, Progress, QuantizationPlan, Recipe, Rule,
    Stage, StatisticsOptions, Treatment, WeightKind, choose_formats,
};

/// Bits of a weight that stays.
const KEPT_BITS: u64 = 16;

/// A choice of formats that is to be made.
#[derive(Clone, Debug)]
pub struct FormatSearch {
    recipe: Recipe,
    auto: AutoFormats,
    candidates: Vec<Candidate>,
}

/// A recipe that layers may follow.
#[derive(Clone, Debug)]
struct Candidate {
    recipe: Recipe,
    plan: QuantizationPlan,
}

/// What was chosen.
#[derive(Clone, Debug)]
pub struct FoundFormats {
    /// The rules; they can be used again without a search.
    pub recipe: Recipe,
    /// What they were chosen from.
    pub report: FormatReport,
}

impl FormatSearch {
    /// Prepares the search that a recipe asks for; none if it has rules.
    ///
    /// # Errors
    /// If a candidate does not fit the network.
    pub fn new(recipe: &Recipe, arch: &ArchSpec) -> Result<Option<Self>, OptimizeError> {
        let Some(auto) = &recipe.auto else { return Ok(None) };
        let candidate = |name: &String| {
            let mut candidate =
                Recipe::built_in(name).expect("reading the recipe checked the names");
            for rule in &mut candidate.rules {
                if rule.weights == WeightKind::Int4 && auto.group != GroupChoice::Auto {
                    rule.group = auto.group;
                }
            }
            candidate.kv = recipe.kv;
            let plan = QuantizationPlan::new(&candidate, arch)?;
            Ok(Candidate { recipe: candidate, plan })
        };
        let candidates: Result<_, OptimizeError> = auto.candidates.iter().map(candidate).collect();
        Ok(Some(Self { recipe: recipe.clone(), auto: auto.clone(), candidates: candidates? }))
    }

    /// What each candidate alone would do; what a [`Job`] refuses of one, the search will meet.
    pub fn plans(&self) -> impl Iterator<Item = &QuantizationPlan> {
        self.candidates.iter().map(|candidate| &candidate.plan)
    }

    /// Bytes of memory that the search takes beside [`Job::peak_bytes`].
    #[must_use]
    pub fn peak_bytes(&self, job: &Job<'_>) -> u64 {
        let sizes = &job.arch.sizes;
        let (hidden, vocabulary) = (sizes.hidden as u64, sizes.vocabulary as u64);
        let scored = self.scored(job).map(Vec::len).sum::<usize>() as u64;
        let variants = 4 * self.candidates.len() as u64 + 2;
        let head = match self.auto.score {
            FormatScore::Kl => 2 * hidden * vocabulary + 16 * 64 * vocabulary,
            FormatScore::Sensitivity => 0,
        };
        head + 4 * variants * scored * hidden
    }

    /// The sequences that scores are measured on.
    fn scored<'a>(&self, job: &Job<'a>) -> impl Iterator<Item = &'a Vec<u32>> {
        let mut before = 0;
        let limit = self.auto.tokens;
        job.calibration.sequences.iter().take_while(move |sequence| {
            let more = before < limit;
            before += sequence.len();
            more
        })
    }

    /// Scores every candidate of every site and chooses.
    ///
    /// `job` says what is quantized by which calibration; its recipe and plan do not count. Scores
    /// are kept beside the job's folder until [`forget`](Self::forget), for a resume.
    ///
    /// # Errors
    /// If a layer cannot be quantized, the size is too small for all candidates, or a file cannot be
    /// written.
    pub fn run<B: Backend>(
        &self,
        job: &Job<'_>,
        backend: &B,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<FoundFormats, OptimizeError> {
        let started = Instant::now();
        let mut scores = self.load(job)?;
        let mut scorer = Scorer::new(self, job, backend)?;
        let blocks = job.arch.sizes.layers;
        // What is left of the model after a block takes time too, if predictions are looked at.
        let work = |block: usize| match self.auto.score {
            FormatScore::Kl => 4 + blocks - block,
            FormatScore::Sensitivity => 1,
        };
        let whole: usize = (0..blocks).map(work).sum();
        for block in 0..blocks {
            let done = (0..block).map(work).sum::<usize>() as f64 / whole as f64;
            progress(Progress { block, blocks, stage: Stage::Choosing, done });
            let known = scores.blocks.get(block).is_some();
            let in_block = |source| OptimizeError::Block { block, source: Box::new(source) };
            let sites = scorer.block(block, known).map_err(in_block)?;
            if !known {
                scores.blocks.push(sites);
                Self::save(job, &scores)?;
            }
        }
        let sites = scores.blocks.into_iter().flatten().collect();
        self.choose(sites, started.elapsed().as_secs_f64())
    }

    /// The best choices within the size, as a recipe.
    fn choose(
        &self,
        mut sites: Vec<SiteFormats>,
        seconds: f64,
    ) -> Result<FoundFormats, OptimizeError> {
        let weights = sites.iter().map(|site| site.weights).sum();
        let choice = |choice: &FormatChoice| Choice { bits: choice.bits, score: choice.score };
        let choices: Vec<Vec<Choice>> =
            sites.iter().map(|site| site.choices.iter().map(choice).collect()).collect();
        let chosen = choose_formats(&choices, weights, self.auto.bits)?;
        let mut recipe = Recipe { auto: None, rules: Vec::new(), ..self.recipe.clone() };
        let mut bits = 0;
        for (site, chosen) in sites.iter_mut().zip(chosen) {
            site.chosen = chosen;
            bits += site.choices[chosen].bits;
            let taken = site.choices[chosen].recipe.as_ref();
            let candidate = self.candidates.iter().find(|c| Some(&c.recipe.name) == taken);
            let Some(candidate) = candidate else { continue };
            for module in &site.modules {
                let rule = candidate.recipe.rule_for(module).expect("it was scored by this rule");
                add_module(&mut recipe.rules, rule, module);
            }
        }
        let report = FormatReport {
            bits_asked: self.auto.bits,
            bits: bits as f64 / weights.max(1) as f64,
            score: self.auto.score,
            seconds,
            sites,
        };
        Ok(FoundFormats { recipe, report })
    }

    fn path(job: &Job<'_>) -> PathBuf {
        let mut name = job.folder.file_name().unwrap_or_default().to_os_string();
        name.push(".scores.json");
        job.folder.with_file_name(name)
    }

    /// Scores of an earlier run, if this one goes on from it.
    fn load(&self, job: &Job<'_>) -> Result<Scores, OptimizeError> {
        let (path, fingerprint) = (Self::path(job), self.fingerprint(job)?);
        if !job.resume || !path.exists() {
            return Ok(Scores { fingerprint, blocks: Vec::new() });
        }
        let damaged = |problem| OptimizeError::State { path: path.clone(), problem };
        let text = std::fs::read_to_string(&path).map_err(OptimizeError::io(&path))?;
        let scores: Scores = serde_json::from_str(&text).map_err(|e| damaged(e.to_string()))?;
        if scores.fingerprint != fingerprint {
            return Err(damaged("it is of another model, recipe or calibration".to_owned()));
        }
        Ok(scores)
    }

    fn save(job: &Job<'_>, scores: &Scores) -> Result<(), OptimizeError> {
        let path = Self::path(job);
        let next = path.with_extension("json.next");
        let text = serde_json::to_string(scores).expect("numbers and strings have a JSON form");
        std::fs::write(&next, text).map_err(OptimizeError::io(&next))?;
        std::fs::rename(&next, &path).map_err(OptimizeError::io(&path))
    }

    /// Removes the scores: the model is written.
    ///
    /// # Errors
    /// If their file is there and stays.
    pub fn forget(job: &Job<'_>) -> Result<(), OptimizeError> {
        let path = Self::path(job);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(OptimizeError::io(&path)(error))
            }
            _ => Ok(()),
        }
    }

    /// What must be the same for scores to be used again; the size may change.
    fn fingerprint(&self, job: &Job<'_>) -> Result<String, OptimizeError> {
        let of = |plan| Job { plan, ..*job }.fingerprint();
        let plans = self.plans().map(of).collect::<Result<Vec<_>, _>>()?;
        Ok(format!("{} {} {}", self.auto.score, self.auto.tokens, plans.join(" ")))
    }
}

/// Scores of the blocks done.
#[derive(Serialize, Deserialize)]
struct Scores {
    fingerprint: String,
    blocks: Vec<Vec<SiteFormats>>,
}

/// Lets a rule hold for one more module.
fn add_module(rules: &mut Vec<Rule>, rule: &Rule, module: &str) {
    let same = |known: &&mut Rule| Rule { layers: known.layers.clone(), ..rule.clone() } == **known;
    if let Some(Rule { layers: LayerPatterns::Several(modules), .. }) = rules.iter_mut().find(same)
    {
        modules.push(module.to_owned());
    } else {
        let layers = LayerPatterns::Several(vec![module.to_owned()]);
        rules.push(Rule { layers, ..rule.clone() });
    }
}

/// A site in one format, and where the residual stream goes by it.
struct Variant {
    site: usize,
    choice: FormatChoice,
    stream: Vec<Vec<f32>>,
}

/// Runs variants of blocks.
struct Scorer<'a, B: Backend> {
    search: &'a FormatSearch,
    job: &'a Job<'a>,
    backend: &'a B,
    runner: BlockRunner<'a, B>,
    /// The residual stream before the next block, of every sequence.
    stream: Vec<Vec<f32>>,
    /// Sequences that are scored, the first of all.
    scored: usize,
    predictions: Option<Predictions<'a, B>>,
}

/// What the model predicts, to compare with.
struct Predictions<'a, B: Backend> {
    head: Head<'a, B>,
    /// The residual stream after the last block, of the sequences that are scored.
    expected: Vec<Vec<f32>>,
}

impl<'a, B: Backend> Scorer<'a, B> {
    fn new(
        search: &'a FormatSearch,
        job: &'a Job<'a>,
        backend: &'a B,
    ) -> Result<Self, OptimizeError> {
        let mut runner = BlockRunner::new(backend, job.arch, job.calibration.longest())?;
        let embed = |tokens: &Vec<u32>| runner.embed(job.checkpoint, tokens);
        let stream: Vec<Vec<f32>> =
            job.calibration.sequences.iter().map(embed).collect::<Result<_, _>>()?;
        let scored = search.scored(job).count();
        let predictions = match search.auto.score {
            FormatScore::Sensitivity => None,
            FormatScore::Kl => {
                let mut expected = stream[..scored].to_vec();
                run_from(0, job, backend, &mut runner, expected.iter_mut())?;
                let head = Head::load(backend, job.checkpoint, job.arch)?;
                Some(Predictions { head, expected })
            }
        };
        Ok(Self { search, job, backend, runner, stream, scored, predictions })
    }

    /// Scores the sites of a block; if that is done already only moves on.
    fn block(&mut self, block: usize, known: bool) -> Result<Vec<SiteFormats>, OptimizeError> {
        let (job, backend) = (self.job, self.backend);
        let weights = BlockWeights::read(job.checkpoint, job.arch, block)?;
        let original = Block::new(backend, job.arch.norm, &weights, [None; 4], KEPT)?;
        if known {
            for hidden in &mut self.stream {
                self.runner.run(&original, block, hidden, &mut ())?;
            }
            return Ok(Vec::new());
        }
        let before = self.stream[..self.scored].to_vec();
        let treatments = |site: usize| {
            let candidates = self.search.candidates.iter();
            candidates.filter_map(move |candidate| {
                Some((candidate, candidate.plan.blocks[block][site].as_ref()?))
            })
        };
        let wanted = [0, 1, 2, 3].map(|site| {
            let options = treatments(site).map(|(_, treatment)| needed_statistics(treatment));
            options.reduce(StatisticsOptions::union)
        });
        let mut tap = Collect::new(backend, job.arch, block, wanted, false)?;
        for hidden in &mut self.stream {
            self.runner.run(&original, block, hidden, &mut tap)?;
            tap.check()?;
        }
        let (statistics, _) = tap.finish()?;
        drop(original);

        let types = job.stored_types(block)?;
        let mut variants = Vec::new();
        for site in 0..4 {
            for (candidate, treatment) in treatments(site) {
                let mut plan: [Option<Treatment>; 4] = [None; 4];
                plan[site] = Some(*treatment);
                let treated = treat(backend, job.arch, weights.clone(), &plan, &statistics, types)?;
                let quantized = treated.quantized.each_ref().map(|parts| parts.as_deref());
                let quantized =
                    Block::new(backend, job.arch.norm, &treated.weights, quantized, KEPT)?;
                let mut stream = before.clone();
                for hidden in &mut stream {
                    self.runner.run(&quantized, block, hidden, &mut ())?;
                }
                let choice = FormatChoice {
                    recipe: Some(candidate.recipe.name.clone()),
                    scheme: treatment.scheme.to_string(),
                    bits: 8 * treated.reports[site].bytes,
                    score: relative_change(&stream, &self.stream, job.arch.sizes.hidden),
                };
                variants.push(Variant { site, choice, stream });
            }
        }
        if let Some(predictions) = &mut self.predictions {
            let streams = variants.iter_mut().flat_map(|variant| &mut variant.stream);
            run_from(block + 1, job, backend, &mut self.runner, streams)?;
            predictions.score(&mut variants, job.arch)?;
        }
        let mut sites: Vec<SiteFormats> = weights
            .linears
            .iter()
            .map(|linear| {
                let stored = &linear.stored;
                let weights = (stored.n * stored.k) as u64;
                let scheme = "16 bits".to_owned();
                let keep =
                    FormatChoice { recipe: None, scheme, bits: KEPT_BITS * weights, score: 0.0 };
                SiteFormats {
                    modules: stored.parts.iter().map(|part| part.module.clone()).collect(),
                    weights,
                    choices: vec![keep],
                    chosen: 0,
                }
            })
            .collect();
        for variant in variants {
            sites[variant.site].choices.push(variant.choice);
        }
        // What nothing can be chosen for does not count as weights.
        sites.retain(|site| site.choices.len() > 1);
        Ok(sites)
    }
}

/// Runs all blocks from `first` on.
fn run_from<'s, B: Backend>(
    first: usize,
    job: &Job<'_>,
    backend: &B,
    runner: &mut BlockRunner<'_, B>,
    streams: impl Iterator<Item = &'s mut Vec<f32>>,
) -> Result<(), OptimizeError> {
    let mut streams: Vec<&mut Vec<f32>> = streams.collect();
    for block in first..job.arch.sizes.layers {
        let weights = BlockWeights::read(job.checkpoint, job.arch, block)?;
        let loaded = Block::new(backend, job.arch.norm, &weights, [None; 4], KEPT)?;
        for hidden in &mut streams {
            runner.run(&loaded, block, hidden, &mut ())?;
        }
    }
    Ok(())
}

impl<B: Backend> Predictions<'_, B> {
    /// Sets each variant's score: the mean KL divergence from what is expected, nats a token.
    fn score(&mut self, variants: &mut [Variant], arch: &ArchSpec) -> Result<(), OptimizeError> {
        let (columns, vocabulary) = (arch.sizes.hidden, arch.sizes.vocabulary);
        let rows = Head::<B>::ROWS;
        let tokens: usize = self.expected.iter().map(|hidden| hidden.len() / columns).sum();
        variants.iter_mut().for_each(|variant| variant.choice.score = 0.0);
        for (sequence, expected) in self.expected.iter().enumerate() {
            for (start, expected) in expected.chunks(rows * columns).enumerate() {
                let expected = self.head.logits(expected)?;
                let expected: Vec<Option<Softmax<'_>>> =
                    expected.par_chunks_exact(vocabulary).map(Softmax::new).collect();
                for Variant { choice, stream, .. } in variants.iter_mut() {
                    let hidden = &stream[sequence][start * rows * columns..];
                    let hidden = &hidden[..hidden.len().min(rows * columns)];
                    let logits = self.head.logits(hidden)?;
                    let compared = logits.par_chunks_exact(vocabulary).zip(&expected);
                    let divergence = |(logits, expected): (_, &Option<Softmax<'_>>)| {
                        let (expected, got) = (expected.as_ref()?, Softmax::new(logits)?);
                        Some(expected.divergence(&got).0.max(0.0))
                    };
                    // Predictions that are no numbers are as bad as can be.
                    let of_row = |row| divergence(row).unwrap_or(f64::INFINITY);
                    choice.score += compared.map(of_row).sum::<f64>() / tokens as f64;
                }
            }
        }
        Ok(())
    }
}

/// The mean over tokens of the squared change of the residual stream, as a share of its square.
fn relative_change(a: &[Vec<f32>], b: &[Vec<f32>], columns: usize) -> f64 {
    let of_tokens = |(a, b): (&Vec<f32>, &Vec<f32>)| -> Vec<f64> {
        let tokens = a.chunks_exact(columns).zip(b.chunks_exact(columns));
        tokens.map(|(a, b)| relative_square(a, b)).collect()
    };
    let shares: Vec<f64> = a.iter().zip(b).flat_map(of_tokens).collect();
    shares.iter().sum::<f64>() / shares.len().max(1) as f64
}
