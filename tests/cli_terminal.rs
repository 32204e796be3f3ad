//! The command beside others: terminals, pipes, links, Ctrl-C at any time, files that change while they are read.
#![cfg(unix)]

mod cli_support;

use cli_support::{Answer, Handmill, gguf, tiny_safetensors};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A small checkpoint of the repository's own.
fn fixture(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/fixtures/families", name].iter().collect()
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
