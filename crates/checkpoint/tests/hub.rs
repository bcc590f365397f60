//! Downloads from a model hub, which is here a server of this test.

mod support;

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use bantam_checkpoint::CheckpointError;
use bantam_checkpoint::fetch::{DataSet, FetchEvent, Locations};
use support::{Folder, safetensors};

const COMMIT: &str = "0123456789abcdef";
const NAME: &str = "org/model";

/// A request as the server saw it.
#[derive(Clone, Debug)]
struct Request {
    path: String,
    range: Option<usize>,
    authorization: Option<String>,
}

/// A hub with one repository.
struct Hub {
    endpoint: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Hub {
    /// Serves these files by their path. Ranges are honoured if `ranges` says so.
    fn serve(files: HashMap<String, Vec<u8>>, ranges: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        // The thread ends with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Some(stream) = stream.ok() else { continue };
                let Some(request) = read_request(&stream) else {
                    continue;
                };
                seen.lock().expect("no panic").push(request.clone());
                let _ = answer(stream, &request, &files, ranges);
            }
        });
        Self { endpoint, requests }
    }

    fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("no panic").clone()
    }
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines();
    let path = lines.next()?.ok()?.split(' ').nth(1)?.to_owned();
    let mut request = Request { path, range: None, authorization: None };
    for line in lines {
        let line = line.ok()?;
        if line.is_empty() {
            return Some(request);
        }
        let (name, value) = line.split_once(": ")?;
        match name.to_ascii_lowercase().as_str() {
            "range" => {
                let start = value.strip_prefix("bytes=")?.strip_suffix('-')?;
                request.range = start.parse().ok();
            }
            "authorization" => request.authorization = Some(value.to_owned()),
            _ => {}
        }
    }
    None
}

fn answer(
    mut stream: TcpStream,
    request: &Request,
    files: &HashMap<String, Vec<u8>>,
    ranges: bool,
) -> std::io::Result<()> {
    let (status, extra, body) = match (files.get(&request.path), request.range) {
        (None, _) => ("404 Not Found", String::new(), &[][..]),
        (Some(bytes), Some(start)) if ranges => {
            let range = format!("Content-Range: bytes {start}-{}/{0}\r\n", bytes.len() - 1);
            ("206 Partial Content", range, &bytes[start..])
        }
        (Some(bytes), _) => ("200 OK", String::new(), &bytes[..]),
    };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\n{extra}Content-Length: {length}\r\nConnection: close\r\n\r\n"
    )?;
    stream.write_all(body)
}

fn weights() -> Vec<u8> {
    let header = r#"{"t":{"dtype":"U8","shape":[100000],"data_offsets":[0,100000]}}"#;
    safetensors(header, &vec![7; 100_000])
}

/// The repository: its list, and its files. `sha256` is what the list claims of the weights.
fn repository(sha256: &str) -> HashMap<String, Vec<u8>> {
    let size = weights().len();
    let list = format!(
        r#"{{"sha":"{COMMIT}","siblings":[
            {{"rfilename":"config.json","size":2}},
            {{"rfilename":"README.md","size":9}},
            {{"rfilename":"../escape.safetensors","size":9}},
            {{"rfilename":"onnx/model.safetensors","size":9}},
            {{"rfilename":"model.safetensors","size":{size},"lfs":{{"sha256":"{sha256}"}}}}]}}"#
    );
    let file = |name: &str| format!("/{NAME}/resolve/{COMMIT}/{name}");
    HashMap::from([
        (format!("/api/models/{NAME}/revision/main?blobs=true"), list.into_bytes()),
        (file("config.json"), b"{}".to_vec()),
        (file("model.safetensors"), weights()),
    ])
}

/// The SHA-256 of `weights()`.
fn weights_sha256() -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(weights()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn locations(folder: &Folder, hub: &Hub) -> Locations {
    Locations {
        models: folder.path().join("models"),
        hub_cache: folder.path().join("hub"),
        endpoint: hub.endpoint.clone(),
        rows_endpoint: hub.endpoint.clone(),
        token: Some("secret".to_owned()),
    }
}

fn tried(locations: &Locations) -> Vec<String> {
    match locations.resolve(NAME, &mut |_| ()) {
        Err(CheckpointError::Unresolved { tried, .. }) => tried,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_repository_is_fetched_once() {
    let (folder, hub) = (Folder::new(), Hub::serve(repository(&weights_sha256()), true));
    let locations = locations(&folder, &hub);
    let mut events = Vec::new();
    let path = locations.resolve(NAME, &mut |event| events.push(event)).expect("served");
    assert_eq!(path, locations.models.join("org--model"));
    assert_eq!(fs::read(path.join("model.safetensors")).expect("fetched"), weights());
    let mut names: Vec<_> =
        fs::read_dir(&path).expect("fetched").map(|e| e.expect("listed").file_name()).collect();
    names.sort();
    assert_eq!(names, ["config.json", "model.safetensors"]);
    assert_eq!(events.last(), Some(&FetchEvent::Finished { path: path.clone() }));
    let total = Some(weights().len() as u64);
    assert!(events.iter().any(|event| matches!(
        event, FetchEvent::Progress { done, total: t, .. } if Some(*done) == total && *t == total
    )));
    assert!(hub.requests().iter().all(|r| r.authorization.as_deref() == Some("Bearer secret")));

    let before = hub.requests().len();
    assert_eq!(locations.resolve(NAME, &mut |_| ()).expect("cached"), path);
    assert_eq!(hub.requests().len(), before, "the second time needs no network");
}

#[test]
fn an_interrupted_download_is_continued() {
    for ranges in [true, false] {
        let (folder, hub) = (Folder::new(), Hub::serve(repository(&weights_sha256()), ranges));
        let locations = locations(&folder, &hub);
        let partial = locations.models.join(format!("org--model.{COMMIT}.partial"));
        fs::create_dir_all(&partial).expect("writable");
        fs::write(partial.join("model.safetensors.part"), &weights()[..60_000]).expect("writable");
        let path = locations.resolve(NAME, &mut |_| ()).expect("served");
        assert_eq!(fs::read(path.join("model.safetensors")).expect("fetched"), weights());
        let continued = hub.requests().iter().any(|request| request.range == Some(60_000));
        assert!(continued, "{:?}", hub.requests());
    }
}

#[test]
fn wrong_bytes_are_not_kept() {
    let (folder, hub) = (Folder::new(), Hub::serve(repository(&"0".repeat(64)), true));
    let locations = locations(&folder, &hub);
    let tried = tried(&locations);
    assert!(tried.iter().any(|reason| reason.contains("SHA-256 is")), "{tried:?}");
    assert!(!locations.models.join("org--model").exists());
    let partial = locations.models.join(format!("org--model.{COMMIT}.partial"));
    assert!(!partial.join("model.safetensors.part").exists());
}

#[test]
fn a_missing_repository_is_explained() {
    let (folder, hub) = (Folder::new(), Hub::serve(HashMap::new(), true));
    let tried = tried(&locations(&folder, &hub));
    assert!(tried.last().is_some_and(|reason| reason.contains("404")), "{tried:?}");
}

#[test]
fn a_folder_in_the_way_is_refused_before_the_download() {
    const FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
    let (folder, hub) = (Folder::new(), Hub::serve(HashMap::new(), true));
    let locations = locations(&folder, &hub);
    fs::create_dir_all(locations.models.join(FILE)).expect("writable");
    let mut events = Vec::new();
    let error = locations.resolve("smollm2", &mut |event| events.push(event));
    let message = error.expect_err("a folder cannot be replaced").to_string();
    assert!(message.contains(&format!("{FILE}: a folder where the file belongs")), "{message}");
    assert_eq!(events, []);
}

#[test]
fn two_at_once_share_one_download() {
    let (folder, hub) = (Folder::new(), Hub::serve(repository(&weights_sha256()), true));
    let locations = locations(&folder, &hub);
    std::thread::scope(|scope| {
        let fetches: Vec<_> =
            (0..2).map(|_| scope.spawn(|| locations.resolve(NAME, &mut |_| ()))).collect();
        for fetch in fetches {
            let path = fetch.join().expect("no panic").expect("served");
            assert_eq!(fs::read(path.join("model.safetensors")).expect("fetched"), weights());
        }
    });
    assert_eq!(hub.requests().len(), 3, "{:?}", hub.requests());
}

#[test]
fn the_cache_of_the_hub_libraries_comes_first() {
    let (folder, hub) = (Folder::new(), Hub::serve(HashMap::new(), true));
    let locations = locations(&folder, &hub);
    let repository = locations.hub_cache.join("models--org--model");
    let snapshot = repository.join("snapshots").join(COMMIT);
    fs::create_dir_all(&snapshot).expect("writable");
    fs::create_dir_all(repository.join("refs")).expect("writable");
    fs::write(repository.join("refs/main"), COMMIT).expect("writable");
    fs::write(snapshot.join("config.json"), "{}").expect("writable");
    let reasons = tried(&locations);
    assert!(
        reasons.iter().any(|reason| reason.contains("a model without its weights")),
        "{reasons:?}"
    );
    fs::write(snapshot.join("model.safetensors"), weights()).expect("writable");
    assert_eq!(locations.resolve(NAME, &mut |_| ()).expect("cached"), snapshot);
}

/// The service's pages of a split of `total` rows, the first `given` of which it has.
fn pages(split: &str, total: usize, given: usize) -> HashMap<String, Vec<u8>> {
    let page = |offset: usize| {
        let rows = (offset..given.min(offset + 100)).map(|i| {
            format!(r#"{{"row_idx":{i},"row":{{"question":"{split}\n{i}","answer":{}}}}}"#, i % 4)
        });
        let rows = rows.collect::<Vec<_>>().join(",");
        let path = format!(
            "/rows?dataset=org%2Fmodel&config=all&split={split}&offset={offset}&length=100"
        );
        (path, format!(r#"{{"rows":[{rows}],"num_rows_total":{total}}}"#).into_bytes())
    };
    (0..=given).step_by(100).map(page).collect()
}

#[test]
fn a_data_set_comes_page_by_page_and_once() {
    let mut files = pages("test", 230, 230);
    files.extend(pages("dev", 100, 100));
    let (folder, hub) = (Folder::new(), Hub::serve(files, true));
    let locations = locations(&folder, &hub);
    let set = DataSet { name: NAME, config: "all", splits: &["test", "dev"] };
    let path = locations.data_set(set, &mut |_| ()).expect("served");
    for (split, rows) in [("test", 230), ("dev", 100)] {
        let text = fs::read_to_string(path.join(format!("{split}.jsonl"))).expect("written");
        assert_eq!(text.lines().count(), rows);
        let last = format!(r#"{{"question":"{split}\n{}","answer":{}}}"#, rows - 1, (rows - 1) % 4);
        assert_eq!(text.lines().last(), Some(last.as_str()));
    }
    assert_eq!(hub.requests().len(), 3 + 1);
    assert_eq!(locations.data_set(set, &mut |_| ()).expect("cached"), path);
    assert_eq!(hub.requests().len(), 3 + 1, "the second time needs no network");
}

#[test]
fn a_data_set_that_is_not_whole_is_refused() {
    let (folder, hub) = (Folder::new(), Hub::serve(pages("test", 230, 200), true));
    let locations = locations(&folder, &hub);
    let refused = |name| {
        let set = DataSet { name, config: "all", splits: &["test"] };
        locations.data_set(set, &mut |_| ()).expect_err("not there").to_string()
    };
    assert!(refused(NAME).contains("only 200 of 230 rows"), "{}", refused(NAME));
    assert!(!locations.models.join("datasets--org--model--all").exists());
    assert!(refused("./mmlu").contains("not a hub name"), "{}", refused("./mmlu"));
}
