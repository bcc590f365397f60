//! Repositories of the model hub: their local copies, and their download with the user's curl.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::store::{self, reason};
use super::{FetchEvent, Locations, Progress, Reason};

/// The files of a repository that a model needs: by name, or by how the name ends.
const WANTED_NAMES: [&str; 6] = [
    "config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "tokenizer.json",
    "tokenizer_config.json",
];
const WANTED_ENDINGS: [&str; 2] = [".safetensors", ".safetensors.index.json"];
/// The largest answer in JSON accepted.
const MAX_ANSWER_BYTES: u64 = 64 << 20;
/// curl's exit code for a server that cannot continue a download.
const CANNOT_RESUME: i32 = 33;

/// A repository name `org/model`.
#[derive(Debug)]
pub(super) struct RepositoryName<'a> {
    pub(super) organization: &'a str,
    pub(super) model: &'a str,
}

impl<'a> RepositoryName<'a> {
    /// Takes `org/model` apart; `None` for anything else, paths in particular.
    pub(super) fn parse(name: &'a str) -> Option<Self> {
        let (organization, model) = name.split_once('/')?;
        (is_plain_name(organization) && is_plain_name(model))
            .then_some(Self { organization, model })
    }

    /// The folder of an own download.
    pub(super) fn folder(&self) -> String {
        format!("{}--{}", self.organization, self.model)
    }

    /// The snapshot of the main branch in a cache of the hub's libraries.
    pub(super) fn snapshot(&self, hub_cache: &Path) -> Option<PathBuf> {
        let repository = hub_cache.join(format!("models--{}--{}", self.organization, self.model));
        let commit = fs::read_to_string(repository.join("refs/main")).ok()?;
        let commit = commit.trim();
        is_plain_name(commit).then(|| repository.join("snapshots").join(commit))
    }
}

/// A name that is one path component and needs no escapes in an address.
fn is_plain_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !name.is_empty() && !name.starts_with('.') && name.bytes().all(plain)
}

/// The hub's answer about a repository.
#[derive(Deserialize)]
struct Repository {
    sha: String,
    siblings: Vec<RemoteFile>,
}

/// One file of a repository.
#[derive(Deserialize)]
struct RemoteFile {
    #[serde(rename = "rfilename")]
    name: String,
    size: Option<u64>,
    /// Present for large files.
    lfs: Option<LargeFile>,
}

#[derive(Deserialize)]
struct LargeFile {
    sha256: String,
}

impl RemoteFile {
    fn is_wanted(&self) -> bool {
        is_plain_name(&self.name)
            && (WANTED_NAMES.contains(&self.name.as_str())
                || WANTED_ENDINGS.iter().any(|ending| self.name.ends_with(ending)))
    }
}

/// Downloads the main branch of a repository into `locations.models`, unless another process just
/// did. What an earlier, interrupted download left is continued.
pub(super) fn download(
    name: &RepositoryName<'_>,
    locations: &Locations,
    progress: Progress<'_>,
) -> Result<PathBuf, Reason> {
    let folder = name.folder();
    store::exclusively(&locations.models, &folder, progress, |progress| {
        let target = locations.models.join(&folder);
        if target.exists() {
            return Ok(target);
        }
        let (organization, model) = (name.organization, name.model);
        let client = Client { token: locations.token.as_deref() };
        let endpoint = &locations.endpoint;
        let repository: Repository = client.json(&format!(
            "{endpoint}/api/models/{organization}/{model}/revision/main?blobs=true"
        ))?;
        if !is_plain_name(&repository.sha) {
            return Err(format!("{endpoint}: no commit of {organization}/{model} in its answer"));
        }
        let files: Vec<_> = repository.siblings.iter().filter(|file| file.is_wanted()).collect();
        if !files.iter().any(|file| file.name.ends_with(".safetensors")) {
            return Err(format!(
                "{endpoint}: {organization}/{model} has no *.safetensors among its {} files",
                repository.siblings.len()
            ));
        }

        // Named by commit, so that files of two versions never mix.
        let partial = locations.models.join(format!("{folder}.{}.partial", repository.sha));
        fs::create_dir_all(&partial).map_err(|error| reason(&partial, error))?;
        for file in files {
            let address = format!(
                "{endpoint}/{organization}/{model}/resolve/{}/{}",
                repository.sha, file.name
            );
            client.fetch(&address, file, &partial, progress)?;
        }
        store::publish(&partial, &target)?;
        progress(FetchEvent::Finished { path: target.clone() });
        Ok(target)
    })
}

/// Requests to the hub through curl.
pub(super) struct Client<'a> {
    pub(super) token: Option<&'a str>,
}

/// Why a request ended early.
enum RequestError {
    /// The server cannot continue where an earlier download stopped.
    CannotResume,
    Failed(Reason),
}

impl Client<'_> {
    /// What the hub answers in JSON.
    pub(super) fn json<T: DeserializeOwned>(&self, address: &str) -> Result<T, Reason> {
        let mut answer = Vec::new();
        let receive = &mut |bytes: &[u8]| {
            answer.extend_from_slice(bytes);
            if answer.len() as u64 > MAX_ANSWER_BYTES {
                return Err(format!("{address}: answer over {MAX_ANSWER_BYTES} bytes"));
            }
            Ok(())
        };
        self.get(address, 0, receive).map_err(|error| match error {
            RequestError::Failed(reason) => reason,
            RequestError::CannotResume => format!("{address}: refused"),
        })?;
        serde_json::from_slice(&answer).map_err(|error| format!("{address}: {error}"))
    }

    /// One file into `folder`: its bytes go to a `.part` file, which takes its name when complete
    /// and verified.
    fn fetch(
        &self,
        address: &str,
        file: &RemoteFile,
        folder: &Path,
        progress: Progress<'_>,
    ) -> Result<(), Reason> {
        let target = folder.join(&file.name);
        if target.exists() {
            return Ok(());
        }
        let part = folder.join(format!("{}.part", file.name));
        let source = address.to_owned();
        progress(FetchEvent::Started { name: file.name.clone(), source });
        match self.append(address, file, &part, progress) {
            Err(RequestError::CannotResume) => {
                fs::remove_file(&part).map_err(|error| reason(&part, error))?;
                self.append(address, file, &part, progress).map_err(|error| match error {
                    RequestError::Failed(reason) => reason,
                    RequestError::CannotResume => format!("{address}: refused"),
                })?;
            }
            Err(RequestError::Failed(reason)) => return Err(reason),
            Ok(()) => {}
        }
        if let Err(reason) = verify(file, &part) {
            // Continuing a wrong file cannot make it right.
            let _ = fs::remove_file(&part);
            return Err(reason);
        }
        store::publish(&part, &target)
    }

    /// Appends to `part` what it lacks.
    fn append(
        &self,
        address: &str,
        file: &RemoteFile,
        part: &Path,
        progress: Progress<'_>,
    ) -> Result<(), RequestError> {
        let failed = |error| RequestError::Failed(reason(part, error));
        let mut output: File =
            OpenOptions::new().create(true).append(true).open(part).map_err(failed)?;
        let mut done = output.metadata().map_err(failed)?.len();
        if done > 0 && file.size == Some(done) {
            return Ok(());
        }
        let name = &file.name;
        self.get(address, done, &mut |bytes| {
            output.write_all(bytes).map_err(|error| reason(part, error))?;
            done += bytes.len() as u64;
            progress(FetchEvent::Progress { name: name.clone(), done, total: file.size });
            Ok(())
        })
    }

    /// Requests `address` from byte `offset` on and hands its content over in pieces.
    fn get(
        &self,
        address: &str,
        offset: u64,
        receive: &mut dyn FnMut(&[u8]) -> Result<(), Reason>,
    ) -> Result<(), RequestError> {
        let failed = |error: std::io::Error| {
            RequestError::Failed(match error.kind() {
                std::io::ErrorKind::NotFound => {
                    format!("{address}: curl is not installed, which downloads need")
                }
                _ => format!("{address}: curl: {error}"),
            })
        };
        let configuration = self.configuration(address, offset).map_err(RequestError::Failed)?;
        let mut curl = Command::new("curl")
            .args(["--disable", "--config", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        if let Some(mut input) = curl.stdin.take() {
            input.write_all(configuration.as_bytes()).map_err(failed)?;
        }
        let mut output = curl.stdout.take().expect("standard output is piped");
        let mut received = Ok(());
        let mut buffer = vec![0; 1 << 20];
        while received.is_ok() {
            match output.read(&mut buffer).map_err(failed)? {
                0 => break,
                count => received = receive(&buffer[..count]),
            }
        }
        // With its output closed, a curl that has more to say ends by itself.
        drop(output);
        let end = curl.wait_with_output().map_err(failed)?;
        received.map_err(RequestError::Failed)?;
        if end.status.success() {
            return Ok(());
        }
        if end.status.code() == Some(CANNOT_RESUME) && offset > 0 {
            return Err(RequestError::CannotResume);
        }
        let complaint = String::from_utf8_lossy(&end.stderr);
        let mut lines: Vec<_> = complaint.lines().map(str::trim).collect();
        lines.dedup(); // each attempt says why it failed
        Err(RequestError::Failed(format!("{address}: {}", lines.join(" ").trim())))
    }

    /// curl's options as a configuration file, which keeps the token out of the process list. curl
    /// sends the header to the host of the address only, not to those it is redirected to.
    fn configuration(&self, address: &str, offset: u64) -> Result<String, Reason> {
        let mut text = "silent\nshow-error\nlocation\nfail\n\
                        connect-timeout = 20\nspeed-limit = 1\nspeed-time = 60\nretry = 4\n"
            .to_owned();
        text += &format!("url = {}\n", quoted(address)?);
        if offset > 0 {
            text += &format!("continue-at = {offset}\n");
        }
        if let Some(token) = self.token {
            text += &format!("header = {}\n", quoted(&format!("Authorization: Bearer {token}"))?);
        }
        Ok(text)
    }
}

/// A value for curl's configuration.
fn quoted(value: &str) -> Result<String, Reason> {
    if value.chars().any(|c| c.is_control() || c == '"' || c == '\\') {
        // The value may be a token: it is not repeated.
        return Err("HF_ENDPOINT or HF_TOKEN holds a quote, backslash or control character".into());
    }
    Ok(format!("\"{value}\""))
}

/// Holds a complete file against what the hub says of it.
fn verify(file: &RemoteFile, path: &Path) -> Result<(), Reason> {
    let found = fs::metadata(path).map_err(|error| reason(path, error))?.len();
    if let Some(size) = file.size
        && size != found
    {
        return Err(format!("{}: {found} bytes, the hub has {size}", path.display()));
    }
    file.lfs.as_ref().map_or(Ok(()), |lfs| store::verify_sha256(path, &lfs.sha256))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_two_plain_names_make_a_repository() {
        assert!(RepositoryName::parse("HuggingFaceTB/SmolLM2-135M-Instruct").is_some());
        for name in ["model", "a/b/c", "../model", "a/..", "/model", "a/", "a b/c", "a/b?c"] {
            assert!(RepositoryName::parse(name).is_none(), "{name}");
        }
    }

    #[test]
    fn configuration_values_cannot_add_options() {
        let client = Client { token: Some("x\"\noutput = \"/etc/passwd") };
        assert!(client.configuration("http://hub", 0).is_err());
    }
}
