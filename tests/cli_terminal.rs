//! The command beside others: terminals, pipes, links, Ctrl-C at any time, files that change while they are read.
#![cfg(unix)]

mod cli_support;

use cli_support::{Answer, Handmill, Running, copy, gguf, tiny_safetensors, wait_for};
use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// A small checkpoint of the repository's own.
fn fixture(name: &str) -> PathBuf {
    cli_support::fixture(name).into()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn run(args: &[&str]) -> Answer {
    Handmill::new().run(args)
}

#[test]
fn control_characters_of_a_file_do_not_reach_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let evil = "x\u{1b}]0;owned\u{7}\u{9b}2J\u{202e}\r\ny\u{7f}";
    let file = folder.path().join("v.gguf");
    let pairs = ["general.architecture", "general.name", "general.license", "tokenizer.ggml.model", evil];
    fs::write(&file, gguf(&pairs.map(|key| (key, evil.as_bytes())))).unwrap();
    let checkpoint = folder.path().join("m");
    fs::create_dir(&checkpoint).unwrap();
    let config = serde_json::json!({ "model_type": evil, "_name_or_path": evil, evil: evil });
    fs::write(checkpoint.join("config.json"), config.to_string()).unwrap();
    fs::write(checkpoint.join("model.safetensors"), tiny_safetensors("evil\\u001b[2J\\u009b")).unwrap();
    fs::write(checkpoint.join("LICENSE"), evil).unwrap();
    for model in [&file, &checkpoint] {
        let model = text(model);
        for args in [
            &["inspect", model, "--tensors", "--metadata"][..],
            &["inspect", model, "--json"],
            &["inspect", model, "--graph", "dot"],
            &["run", model, "-p", "x"],
            &["tokenize", model, "x"],
        ] {
            let answer = run(args);
            let obeyed = |c: char| c.is_control() && c != '\n' || "\u{202e}".contains(c);
            for out in [&answer.stdout, &answer.stderr] {
                assert!(!out.contains(obeyed), "{args:?}: {out:?}");
            }
            assert!(!answer.stdout.lines().any(|line| line.starts_with('y')), "{args:?}: {}", answer.stdout);
        }
        let value = run(&["inspect", model, "--json"]).json();
        assert_eq!(value["architecture"], evil);
        assert!(run(&["inspect", model]).stdout.contains("x\\u{1b}]0;owned\\u{7}\\u{9b}2J\\u{202e}\\r\\ny\\u{7f}"));
    }
}

#[test]
fn text_that_begins_with_a_dash_is_taken_where_a_text_stands() {
    let model = fixture("llama2");
    let model = text(&model);
    let tokens = |text: &str| {
        let ids = Handmill::new().stdin(text.as_bytes()).run(&["tokenize", model, "--json"]).json()["ids"].clone();
        ids.as_array().unwrap().len()
    };
    for prompt in ["- item", "-", "--", "-1", "--- a", "-n", "--json", "-p"] {
        let args =
            ["run", model, "--raw", "--temp", "0", "-n", "2", "--json", "--ignore-eos", "--stop", "-- x", "-p", prompt];
        assert_eq!(run(&args).json()["prompt"]["tokens"], tokens(prompt), "{prompt:?}");
    }
    for given in ["- item", "-1", "---", "-x", "--no-such-option"] {
        let ids = run(&["tokenize", model, given, "--json"]).json()["ids"].clone();
        assert_eq!(ids.as_array().unwrap().len(), tokens(given), "{given:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("-t.txt"), "- item").unwrap();
    let logits = ["logits", model, "--tokens", "1", "--out", "-x.npy"];
    Handmill::new().folder(folder.path()).run(&logits).assert_ok();
    assert!(folder.path().join("-x.npy").is_file());
    let by_file = Handmill::new().folder(folder.path()).run(&["tokenize", model, "--json", "--file", "-t.txt"]).json();
    assert_eq!(by_file["ids"].as_array().unwrap().len(), tokens("- item"));
    // An option is not taken for a name that was left out.
    for args in [&["tokenize", model, "--file", "--json"], &["logits", model, "--out", "--tokens"]] {
        assert_eq!(run(args).code, Some(2), "{args:?}");
    }
    // What is an option there stays one, unless it stands behind `--`.
    assert_eq!(run(&["tokenize", model, "--json", "a"]).json()["ids"].as_array().unwrap().len(), tokens("a"));
    let behind = run(&["tokenize", model, "--json", "--", "--json"]).json();
    assert_eq!(behind["ids"].as_array().unwrap().len(), tokens("--json"));
}

#[test]
fn an_answer_that_is_cut_off_says_so() {
    let model = fixture("llama2");
    let answer = |more: &[&str]| {
        let args = ["run", text(&model), "--raw", "-p", "ab", "--temp", "0", "--ignore-eos"];
        let answer = run(&[&args[..], more].concat());
        answer.assert_ok();
        answer.stderr
    };
    let cut = answer(&["-n", "4"]);
    assert!(cut.contains("cut off") && cut.contains("may have, 4") && cut.contains("-n"), "{cut}");
    let full = answer(&["-n", "400", "--ctx", "16"]);
    assert!(full.contains("cut off") && full.contains("16 tokens") && full.contains("--ctx"), "{full}");
}

#[test]
fn no_more_threads_are_started_than_can_help() {
    let model = fixture("llama2");
    let answer =
        run(&["run", text(&model), "-p", "ab", "-n", "2", "--threads", "1000000", "--json", "--backend", "cpu"]);
    answer.assert_ok();
    assert!(answer.stderr.contains("--threads 1000000 is more than can help"), "{}", answer.stderr);
    assert_eq!(answer.json()["generation"]["tokens"], 2);
}

#[cfg(target_os = "linux")]
#[test]
fn drivers_say_nothing_where_there_is_no_desktop() {
    let bare = || Handmill::new().bare();
    let answer = bare().run(&["devices"]);
    answer.assert_ok();
    assert_eq!(answer.stderr, "");
    bare().run(&["run", text(&fixture("llama2")), "-p", "ab", "--device", "no such"]).assert_failed(1, "GPU");
}

/// The array's shape and length in a `.npy` file.
fn npy(bytes: &[u8]) -> (String, usize) {
    assert!(bytes.starts_with(b"\x93NUMPY"), "{:?}", &bytes[..bytes.len().min(20)]);
    let header = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let text = String::from_utf8_lossy(&bytes[10..10 + header]).into_owned();
    let shape = text.split_once("'shape': ").unwrap().1.split_once(')').unwrap().0.to_owned() + ")";
    (shape, bytes.len() - 10 - header)
}

fn logits(model: &Path, out: &Path) -> Running {
    Handmill::new().start(&["logits", text(model), "--tokens", "1,5,7", "--out", text(out)])
}

#[test]
fn arrays_go_into_pipes_and_through_links() {
    let model = fixture("llama2");
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    logits(&model, &at("x.npy")).wait().assert_ok();
    let right = fs::read(at("x.npy")).unwrap();
    assert_eq!(npy(&right).0, "(3, 320)");

    assert!(std::process::Command::new("mkfifo").arg(at("fifo")).status().unwrap().success());
    let reader = std::thread::spawn({
        let fifo = at("fifo");
        move || fs::read(fifo).unwrap()
    });
    logits(&model, &at("fifo")).wait().assert_ok();
    assert_eq!(reader.join().unwrap(), right);
    assert!(!fs::metadata(at("fifo")).unwrap().is_file());

    std::os::unix::fs::symlink("away.npy", at("link")).unwrap();
    logits(&model, &at("link")).wait().assert_ok();
    assert!(at("link").is_symlink());
    assert_eq!(fs::read(at("away.npy")).unwrap(), right);

    logits(&model, Path::new("/dev/null")).wait().assert_ok();
    assert!(!fs::metadata("/dev/null").unwrap().is_file());

    // Standard output gets the array and nothing else, be it a pipe or a file.
    for out in ["/dev/stdout", "-"] {
        let mut running = logits(&model, Path::new(out));
        let mut bytes = Vec::new();
        running.child.stdout.take().unwrap().read_to_end(&mut bytes).unwrap();
        running.wait().assert_ok();
        assert_eq!(bytes, right, "{out}");
        let file = at("redirected.npy");
        let args = ["logits", text(&model), "--tokens", "1,5,7", "--json", "--out", out];
        Handmill::new().stdout(fs::File::create(&file).unwrap()).run(&args).assert_ok();
        assert_eq!(fs::read(&file).unwrap(), right, "{out}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 5);
}

#[test]
fn runs_that_write_one_file_at_once_do_not_mix() {
    let model = fixture("llama2");
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("x.npy");
    let running: Vec<Running> = (0..4).map(|_| logits(&model, &out)).collect();
    running.into_iter().for_each(|running| running.wait().assert_ok());
    assert_eq!(npy(&fs::read(&out).unwrap()), ("(3, 320)".to_owned(), 3 * 320 * 4));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_file_that_is_cut_short_while_it_is_used_is_one_clear_line() {
    let model = copy("llama2");
    let out = model.path().join("x.npy");
    let weights = model.path().join("model.safetensors");
    let cut = || fs::File::options().write(true).open(&weights).unwrap().set_len(100).unwrap();
    let whole = fs::read(&weights).unwrap();
    let ids = vec!["5"; 60_000].join(",");
    let model = text(model.path());
    for args in [
        &["run", model, "-p", "ab", "-n", "1000000", "--ctx", "1000000", "--ignore-eos", "--temp", "2"][..],
        &["logits", model, "--ctx", "60000", "--tokens", &ids, "--out", text(&out)],
    ] {
        fs::write(&weights, &whole).unwrap();
        let mut running = Handmill::new().start(args);
        if args[0] == "run" {
            let mut stdout = running.child.stdout.take().unwrap();
            stdout.read_exact(&mut [0]).expect("the answer begins");
            std::thread::spawn(move || stdout.read_to_end(&mut Vec::new()));
        } else {
            let folder = out.parent().unwrap();
            wait_for(|| fs::read_dir(folder).unwrap().flatten().any(|f| f.path().extension() == Some("part".as_ref())));
        }
        cut();
        running.wait().assert_failed(1, "model.safetensors: the file was cut short");
    }
    assert!(
        fs::read_dir(out.parent().unwrap()).unwrap().flatten().all(|f| f.path().extension() != Some("part".as_ref()))
    );
}

#[test]
fn a_bus_error_of_something_else_ends_the_command_as_ever() {
    let mut running = Handmill::new().open_stdin().start(&["tokenize", text(&fixture("llama2"))]);
    let open = running.child.stdin.take();
    std::thread::sleep(Duration::from_millis(300));
    running.signal("BUS");
    let answer = running.wait();
    assert_eq!((answer.code, answer.stderr.as_str()), (None, ""));
    drop(open);
}

/// Interrupts the command after a while, and checks that it ends within a second.
#[track_caller]
fn interrupted(running: Running, after: Duration) -> Answer {
    std::thread::sleep(after);
    running.interrupt();
    let start = Instant::now();
    let answer = running.wait();
    assert_eq!(answer.code, Some(130), "{}", answer.stderr);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert!(answer.stderr.ends_with("error: interrupted\n"), "{}", answer.stderr);
    answer
}

#[test]
fn ctrl_c_ends_commands_that_wait_for_input() {
    let model = fixture("llama2");
    for command in [&["tokenize"][..], &["detokenize"], &["run"], &["perplexity", "--file", "-"]] {
        let args = [&command[..1], &[text(&model)], &command[1..]].concat();
        let mut running = Handmill::new().open_stdin().start(&args);
        let open = running.child.stdin.take();
        interrupted(running, Duration::from_millis(300));
        drop(open);
    }
}

#[test]
fn ctrl_c_ends_commands_that_work() {
    let model = fixture("llama2");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("text.txt");
    fs::write(&file, "a b ".repeat(40_000)).unwrap();
    let out = folder.path().join("x.npy");
    let ids = vec!["5"; 60_000].join(",");
    let config = format!("{}/config.json", text(&model));
    let (model, file, out) = (text(&model), text(&file), text(&out));
    for args in [
        &["logits", model, "--ctx", "60000", "--tokens", &ids, "--out", out][..],
        &["perplexity", model, "--ctx", "30000", "--file", file],
        &["bench", model, "-p", "30000", "-n", "0", "--no-walls"],
        &["bench", model, "-p", "0", "-n", "30000", "--no-walls"],
        &["bench", "--synthetic", &config, "-p", "30000", "-n", "1"],
    ] {
        let running = Handmill::new().start(&[args, &["--threads", "1", "--backend", "cpu"]].concat());
        let answer = interrupted(running, Duration::from_millis(400));
        assert_eq!(answer.stdout, "", "{args:?}");
    }
    // Nothing of the array is left.
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn an_interrupted_prompt_counts_what_was_run() {
    let model = fixture("llama2");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("text.txt");
    fs::write(&file, "a b ".repeat(60_000)).unwrap();
    let args = ["run", text(&model), "--threads", "1", "--ctx", "300000", "-n", "3", "--json", "--file", text(&file)];
    let answer =
        interrupted(Handmill::new().start(&[&args[..], &["--backend", "cpu"]].concat()), Duration::from_millis(700));
    let value: serde_json::Value = serde_json::from_str(&answer.stdout).expect("JSON");
    assert_eq!((&value["stop"], &value["text"]), (&"cancelled".into(), &"".into()), "{value}");
    assert!(value["prompt"]["tokens"].as_u64().unwrap() < 120_000, "{value}");
    assert!(value["time_to_first_token"].is_null(), "{value}");
}
