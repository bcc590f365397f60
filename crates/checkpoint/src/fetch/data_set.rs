//! Data sets of the hub, row by row: its own files come in formats by the dozen, its service for rows in
//! one.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use super::hub::{Client, RepositoryName};
use super::store::{self, reason};
use super::{FetchEvent, Locations, Progress, Reason};
use crate::CheckpointError;

/// Rows of a request; the service gives no more.
const PAGE: usize = 100;

/// A part of a data set.
///
/// ```
/// use bantam_checkpoint::fetch::DataSet;
/// let mmlu = DataSet { name: "cais/mmlu", config: "all", splits: &["test", "dev"] };
/// assert_eq!(mmlu.splits.len(), 2);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataSet<'a> {
    /// `org/name` on the hub.
    pub name: &'a str,
    /// The configuration.
    pub config: &'a str,
    /// The splits.
    pub splits: &'a [&'a str],
}

/// An answer of the service.
#[derive(Deserialize)]
struct Page {
    rows: Vec<Row>,
    num_rows_total: usize,
}

#[derive(Deserialize)]
struct Row {
    row: Value,
}

impl Locations {
    /// The folder of a data set, with one `SPLIT.jsonl` for each split; downloads it if it must.
    ///
    /// # Errors
    /// If the name is none of the hub, or the download fails.
    pub fn data_set(
        &self,
        set: DataSet<'_>,
        progress: &mut dyn FnMut(FetchEvent),
    ) -> Result<PathBuf, CheckpointError> {
        let unresolved = |tried| CheckpointError::NoDataSet { name: set.name.to_owned(), tried };
        let Some(repository) = RepositoryName::parse(set.name) else {
            let tried = ["no such folder", "not a hub name org/name"].map(str::to_owned);
            return Err(unresolved(tried.to_vec()));
        };
        let folder = format!("datasets--{}--{}", repository.folder(), set.config);
        let fetched = store::exclusively(&self.models, &folder, progress, |progress| {
            let target = self.models.join(&folder);
            if target.exists() {
                return Ok(target);
            }
            let partial = self.models.join(format!("{folder}.partial"));
            fs::create_dir_all(&partial).map_err(|error| reason(&partial, error))?;
            for split in set.splits {
                let path = partial.join(format!("{split}.jsonl"));
                if !path.exists() {
                    let lines = self.rows(&repository, set.config, split, progress)?;
                    let next = partial.join(format!("{split}.part"));
                    fs::write(&next, lines).map_err(|error| reason(&next, error))?;
                    store::publish(&next, &path)?;
                }
            }
            store::publish(&partial, &target)?;
            progress(FetchEvent::Finished { path: target.clone() });
            Ok(target)
        });
        fetched.map_err(|reason| unresolved(vec!["no such folder".to_owned(), reason]))
    }

    /// All rows of a split, a line each.
    fn rows(
        &self,
        name: &RepositoryName<'_>,
        config: &str,
        split: &str,
        progress: Progress<'_>,
    ) -> Result<String, Reason> {
        let client = Client { token: self.token.as_deref() };
        let (endpoint, organization, model) = (&self.rows_endpoint, name.organization, name.model);
        let file = format!("{split} of {organization}/{model}");
        progress(FetchEvent::Started { name: file.clone(), source: endpoint.clone() });
        let (mut lines, mut count) = (String::new(), 0);
        loop {
            let page: Page = client.json(&format!(
                "{endpoint}/rows?dataset={organization}%2F{model}&config={config}&split={split}\
                 &offset={count}&length={PAGE}"
            ))?;
            for Row { row } in &page.rows {
                let _ = writeln!(lines, "{row}");
            }
            count += page.rows.len();
            let total = Some(page.num_rows_total as u64);
            progress(FetchEvent::Progress { name: file.clone(), done: count as u64, total });
            if count >= page.num_rows_total {
                return Ok(lines);
            }
            if page.rows.is_empty() {
                let total = page.num_rows_total;
                return Err(format!("{endpoint}: only {count} of {total} rows of {file} came"));
            }
        }
    }
}
