//! `bantam eval` and `bantam bench` as a user sees them.
#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod common;

use common::{folder, run, tiny_checkpoint};

#[test]
fn formats_of_a_model_are_compared_in_json() {
    let finished = run(&[
        "eval",
        "smollm2@int8",
        "smollm2@int4",
        "--against",
        "smollm2",
        "--limit",
        "96",
        "--window",
        "64",
        "--stride",
        "32",
        "--json",
    ]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let report = finished.json();
    assert_eq!(report["against"]["dtype"], "f32");
    let models = report["models"].as_array().unwrap();
    let dtypes: Vec<_> = models.iter().map(|model| model["dtype"].as_str().unwrap()).collect();
    assert_eq!(dtypes, ["int8", "int4"]);
    for model in models {
        assert_eq!(model["model"], "smollm2");
        assert_eq!(model["scored_tokens"], 95);
        assert_eq!(model["text_tokens"], 96);
        let convention = serde_json::json!({ "window": 64, "stride": 32, "bos": false });
        assert_eq!(model["convention"], convention);
        assert!(model["perplexity"].as_f64().unwrap() > 1.0);
        assert!(model["max_logit_delta"].as_f64().unwrap() > 0.0);
    }
    // Fewer bits, further away.
    let both = |key: &str| [0, 1].map(|i: usize| models[i][key].as_f64().unwrap());
    let ([kl_int8, kl_int4], [agreed_int8, agreed_int4]) =
        (both("kl_mean"), both("top1_agreement"));
    assert!(0.0 < kl_int8 && kl_int8 < kl_int4, "{kl_int8} {kl_int4}");
    assert!(1.0 >= agreed_int8 && agreed_int8 >= agreed_int4, "{agreed_int8} {agreed_int4}");
}

#[test]
fn the_table_states_the_convention() {
    let text = folder("text").join("short.txt");
    std::fs::write(&text, "The river has been crossed many times, and many times it has not.")
        .unwrap();
    let text = text.to_str().unwrap();
    let finished = run(&["eval", "smollm2", "--text", text, "--dtype", "int8"]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    for part in ["perplexity", "smollm2", "int8", "windows of 2048", "short.txt", "no begin-of-seq"]
    {
        assert!(finished.stdout.contains(part), "no {part} in {}", finished.stdout);
    }
}

#[test]
fn what_cannot_be_scored_is_refused() {
    let refusal =
        |arguments: &[&str]| run(&[&["eval", "smollm2"], arguments].concat()).refusal().to_owned();
    assert!(refusal(&["--window", "9000"]).contains("use --window 8192"));
    assert!(refusal(&["--window", "64", "--stride", "65"]).contains("1 to 64"));
    for limit in ["0", "1"] {
        assert!(refusal(&["--limit", limit]).contains("at least 2"));
    }
    let empty = folder("empty-text").join("text.txt");
    std::fs::write(&empty, "").unwrap();
    assert!(refusal(&["--text", empty.to_str().unwrap()]).contains("the text has 0 tokens"));
    #[cfg(unix)]
    assert!(refusal(&["--text", "/dev/zero"]).contains("--text /dev/zero: longer than"));
    assert!(refusal(&["--text", "no-such.txt"]).contains("no-such.txt"));
    let latin = folder("latin").join("text.txt");
    std::fs::write(&latin, b"caf\xe9").unwrap();
    assert!(
        refusal(&["--text", latin.to_str().unwrap()]).contains("line 1 is not UTF-8, from byte 3")
    );
    assert_eq!(run(&["eval", "smollm2", "--task", "mmul"]).code, Some(2));
}

#[test]
fn speed_is_reported_as_a_share_of_the_limit() {
    let finished = run(&[
        "bench",
        "model",
        "smollm2",
        "--dtype",
        "int8",
        "--prompt-tokens",
        "16",
        "--decode-tokens",
        "4",
        "--batch",
        "1,2",
        "--repetitions",
        "1",
        "--json",
    ]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let report = finished.json();
    assert!(report["ceilings"]["read_bytes_per_second"].as_f64().unwrap() > 1e8);
    let results = report["results"].as_array().unwrap();
    assert_eq!(results.len(), 2);
    for (result, batch) in results.iter().zip([1, 2]) {
        assert_eq!(result["speed"]["batch"], batch);
        assert!(result["speed"]["decode_tokens_per_second"].as_f64().unwrap() > 0.0);
        assert!(result["decode_share"].as_f64().unwrap() > 0.0);
    }
    let nothing = run(&["bench", "model", "smollm2", "--decode-tokens", "0"]);
    assert_eq!(nothing.code, Some(2));
    assert!(nothing.stderr.contains("expected 1 or more"), "{}", nothing.stderr);
}

#[test]
fn a_quantized_folder_is_measured_as_it_is() {
    let quantized = folder("bench").join("int8");
    let quantized = quantized.to_str().unwrap();
    let source = tiny_checkpoint();
    let source = source.to_str().unwrap();
    let made = run(&["quantize", source, "--recipe", "int8_wo", "--no-eval", "-o", quantized]);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let short = ["--prompt-tokens", "8", "--decode-tokens", "4", "--repetitions", "1", "--json"];
    let finished = run(&[&["bench", "model", quantized], &short[..]].concat());
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let dtypes: Vec<_> = finished.json()["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| result["dtype"].as_str().unwrap().to_owned())
        .collect();
    assert!(!dtypes.is_empty() && dtypes.iter().all(|dtype| dtype == "bf16"), "{dtypes:?}");
}

#[test]
fn what_cannot_be_measured_is_refused_in_the_options_of_the_command() {
    let bench = |arguments: &[&str]| run(&[&["bench", "model", "smollm2"], arguments].concat());
    let long = bench(&["--prompt-tokens", "9000"]);
    let message = long.refusal();
    assert!(message.contains("--prompt-tokens 9000") && message.contains("8192"), "{message}");
    let batch = bench(&["--batch", "2000000"]);
    assert_eq!(batch.code, Some(2));
    assert!(batch.stderr.contains("--batch") && batch.stderr.contains("1 to"), "{}", batch.stderr);
}

#[test]
#[cfg(target_os = "linux")]
fn more_memory_than_there_is_is_refused_with_the_batch_that_fits() {
    let arguments = ["bench", "model", "smollm2", "--dtype", "int4", "--repetitions", "1"];
    let finished = run(&[&arguments[..], &["--batch", "1000000"]].concat());
    let message = finished.refusal();
    assert!(message.contains("of memory") && message.contains("use --"), "{message}");
    assert!(message.contains("--batch") && !message.contains("--context"), "{message}");
}

#[test]
fn help_teaches_with_examples() {
    for command in
        [&["--help"][..], &["run", "--help"], &["eval", "--help"], &["inspect", "--help"]]
    {
        let finished = run(command);
        assert_eq!(finished.code, Some(0));
        assert!(finished.stdout.contains("Examples:"), "{}", finished.stdout);
    }
    assert_eq!(run(&["no-such-command"]).code, Some(2));
}

/// The everyday questions, `arguments` added, as JSON.
fn everyday(arguments: &[&str]) -> serde_json::Value {
    let first = ["eval", "--task", "everyday", "--json"];
    let finished = run(&[&first[..], arguments].concat());
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    finished.json()
}

#[test]
fn answers_are_compared_with_those_of_the_original() {
    let report = everyday(&["smollm2@int8", "smollm2@int4", "--against", "smollm2"]);
    assert_eq!((&report["questions"], &report["form"]), (&24.into(), &"texts".into()));
    let accuracy = |model: &serde_json::Value| model["accuracy"].as_f64().unwrap();
    let original = accuracy(&report["against"]);
    assert!(original > 0.5, "everyday questions are easy: {original}");
    for model in report["models"].as_array().unwrap() {
        let count = |key: &str| model[key].as_u64().unwrap() as f64;
        let difference = (count("gained") - count("lost")) / 24.0;
        assert!((accuracy(model) - original - difference).abs() < 1e-9);
        let loss = model["loss_percent"].as_f64().unwrap();
        assert!((loss + 100.0 * difference / original).abs() < 1e-9);
        assert!((0.0..=1.0).contains(&model["mcnemar_p"].as_f64().unwrap()));
        assert_eq!(model["answered"], 24);
    }
    let kl = [0, 1].map(|i: usize| report["models"][i]["kl_mean"].as_f64().unwrap());
    assert!(0.0 < kl[0] && kl[0] < kl[1], "{kl:?}");
}

#[test]
fn a_run_goes_on_where_another_stopped() {
    let results = folder("results");
    let folder = results.to_str().unwrap();
    let ask = |limit: &str| {
        everyday(&["smollm2@int8", "--form", "greedy", "--results", folder, "--limit", limit])
    };
    let first = ask("6");
    let file = results.join("everyday-greedy-0.smollm2@int8.jsonl");
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(text.lines().count(), 1 + 6);
    // A kill in the middle of a line loses that line only.
    std::fs::write(&file, &text[..text.len() - 5]).unwrap();
    assert_eq!(ask("6"), first);
    assert_eq!(ask("10")["models"][0]["answered"], 10);
    let grown = std::fs::read_to_string(&file).unwrap();
    assert_eq!(grown.lines().count(), 1 + 10);
    assert!(grown.starts_with(text[..text.len() - 5].rsplit_once('\n').unwrap().0));
    assert_eq!(ask("6"), first, "a smaller limit leaves answers out of the table");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), grown, "nothing was left to ask");

    let other = run(&[
        "eval",
        "smollm2@int8",
        "--task",
        "everyday",
        "--form",
        "greedy",
        "--results",
        folder,
        "--window",
        "64",
    ]);
    assert!(other.refusal().contains("its context is 8192, but this run's is 64"));
}

#[test]
fn mmlu_is_read_from_the_files_of_the_release() {
    let data = folder("mmlu");
    for split in ["test", "dev"] {
        std::fs::create_dir_all(data.join("data").join(split)).unwrap();
        for subject in ["bird_watching", "cooking"] {
            let rows = "\"What is it,\nthen?\",one,two,three,\"four, or\nso\",B\nAnd?,a,b,c,d,D\n";
            let file = data.join("data").join(split).join(format!("{subject}_{split}.csv"));
            std::fs::write(file, rows).unwrap();
        }
    }
    let data = data.to_str().unwrap();
    let mmlu = ["eval", "smollm2@int8", "--task", "mmlu", "--data", data];
    let finished = run(&[&mmlu[..], &["--shots", "2", "--by-subject"]].concat());
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    for part in ["bird_watching", "cooking", "mmlu: 4 questions, --form letters, --shots 2"] {
        assert!(finished.stdout.contains(part), "no {part} in {}", finished.stdout);
    }
    let refusal = run(&mmlu).refusal().to_owned();
    assert!(refusal.contains("use --shots 2"), "{refusal}");
}

#[test]
fn questions_that_cannot_be_asked_are_refused() {
    let refusal = |arguments: &[&str]| {
        run(&[&["eval", "smollm2", "--task"], arguments].concat()).refusal().to_owned()
    };
    assert!(refusal(&["mmlu"]).contains("--data"));
    assert!(refusal(&["mmlu", "--data", "./mmlu"]).contains("cannot find data set `./mmlu`"));
    let empty = folder("no-mmlu");
    assert!(refusal(&["mmlu", "--data", empty.to_str().unwrap()]).contains("is not MMLU"));
    assert!(refusal(&["everyday", "--stride", "5"]).contains("--task perplexity"));
    assert!(refusal(&["perplexity", "--shots", "1"]).contains("--task mmlu"));
    assert!(refusal(&["everyday", "--shots", "1"]).contains("use --shots 0"));
    assert!(refusal(&["everyday", "--limit", "0"]).contains("at least 1 question"));
    assert!(refusal(&["everyday", "--window", "9000"]).contains("use --window 8192"));
    let file = empty.join("bad.jsonl");
    std::fs::write(&file, "{\"question\":\"?\",\"choices\":[\"a\"],\"answer\":0}\n").unwrap();
    assert!(refusal(&[file.to_str().unwrap()]).contains("bad.jsonl:1: 1 choices"));
    assert!(refusal(&["none.jsonl"]).contains("none.jsonl"));
    assert_eq!(run(&["eval", "smollm2", "--task", "everyday", "--shots", "6"]).code, Some(2));
}
