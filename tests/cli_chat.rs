//! Conversations on the command line: what `run` makes of a message, and chats by lines of a pipe.

mod cli_support;

use cli_support::{Answer, Handmill, copy};
use serde_json::{Value, json};
use std::fs;

const TEMPLATE: &str = "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}</s>{% endfor %}\
    {% if add_generation_prompt %}<s>assistant: {% endif %}";

/// A copy of a small checkpoint of the repository's own, with a chat template.
struct Model(tempfile::TempDir);

impl Model {
    fn with(template: Option<&str>) -> Self {
        let folder = copy("llama3");
        match template {
            Some(template) => fs::write(folder.path().join("chat_template.jinja"), template).unwrap(),
            // The fixture's own is in there.
            None => fs::remove_file(folder.path().join("tokenizer_config.json")).unwrap(),
        }
        Self(folder)
    }

    fn path(&self) -> &str {
        self.0.path().to_str().unwrap()
    }

    fn chat(&self, options: &[&str], lines: &str) -> Answer {
        // Nobody's own history and cache.
        let handmill = Handmill::new().env("HANDMILL_CACHE", self.path()).stdin(lines.as_bytes());
        handmill.run(&[&["chat", self.path(), "--backend", "cpu", "-n", "8", "--seed", "23"], options].concat())
    }

    fn run(&self, args: &[&str], stdin: &str) -> Value {
        let fixed = ["run", self.path(), "--backend", "cpu", "-n", "8", "--seed", "23", "--json"];
        let answer = Handmill::new().stdin(stdin.as_bytes()).run(&[&fixed, args].concat());
        answer.assert_ok();
        serde_json::from_str(&answer.stdout).expect("JSON")
    }
}

fn turns(answer: &Answer) -> Vec<Value> {
    answer.assert_ok();
    answer.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn number(of: &Value, path: &str) -> u64 {
    of.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("{path} of {of}"))
}

#[test]
fn turns_of_a_piped_chat_run_their_own_tokens_alone() {
    let model = Model::with(Some(TEMPLATE));
    let lines: String = (0..10).map(|n| format!("message number {n}\n")).collect();
    let turns = turns(&model.chat(&["--json"], &lines));
    assert_eq!(turns.len(), 10);
    let first = number(&turns[0], "/prompt/tokens");
    for turn in &turns[1..] {
        // The end of the answer before is new as well, and its last token has not been run.
        assert!(number(turn, "/prompt/tokens") <= first + 2, "{turn}");
        assert!(number(turn, "/prompt/reused") > 0);
    }
}

#[test]
fn a_message_is_rendered_and_raw_text_is_not() {
    let model = Model::with(Some(TEMPLATE));
    let tokens = |value: &Value| number(value, "/prompt/tokens");
    let message = model.run(&["-p", "hello"], "");
    let raw = model.run(&["-p", "hello", "--raw"], "");
    assert!(tokens(&message) > tokens(&raw) + 4, "{message} {raw}");
    // The last line end of a pipe or a file is not part of the message.
    let file = model.0.path().join("message.txt");
    fs::write(&file, "hello\n").unwrap();
    for same in [model.run(&[], "hello\n"), model.run(&["-f", file.to_str().unwrap()], ""), model.run(&["hello"], "")] {
        assert_eq!((&same["ids"], tokens(&same)), (&message["ids"], tokens(&message)));
    }
    assert_eq!(message["seed"], 23);
    let told = model.run(&["-p", "hello", "--system", "be brief"], "");
    assert!(tokens(&told) > tokens(&message));
}

#[test]
fn a_message_where_the_model_stands_is_named() {
    Handmill::new().run(&["run", "What is up?"]).assert_failed(2, "\"What is up?\" stands where the model does");
}

#[test]
fn models_without_a_template_continue_and_say_so() {
    let model = Model::with(None);
    let answer =
        Handmill::new().run(&["run", model.path(), "--backend", "cpu", "-n", "4", "--seed", "23", "-p", "hello"]);
    answer.assert_ok();
    assert!(answer.stderr.contains("no chat template"), "{}", answer.stderr);
    Handmill::new().run(&["chat", model.path(), "--backend", "cpu"]).assert_failed(1, "no chat template");
}

#[test]
fn commands_of_a_chat_do_what_they_say() {
    let model = Model::with(Some(TEMPLATE));
    let saved = model.0.path().join("saved.json");
    let lines = format!(
        "/help\n/system be brief\nfirst\n/stats\n/regen\n/undo\n/set temp 0.5\n/set colour red\n/nonsense\n\
         \"\"\"two\nlines\"\"\"\n/save {0}\n/reset\n/load {0}\n/load {0}.missing\nlast\n/exit\nnever read\n",
        saved.display()
    );
    let answer = model.chat(&[], &lines);
    answer.assert_ok();
    let said = &answer.stderr;
    for expected in [
        "/regen",
        "the last turn evaluated",
        "temp is 0.5",
        "no parameter colour",
        "no command /nonsense",
        "3 messages",
        ".missing",
    ] {
        assert!(said.contains(expected), "{expected:?} is not in {said}");
    }
    let conversation: Value = serde_json::from_str(&fs::read_to_string(saved).unwrap()).unwrap();
    let messages = conversation["messages"].as_array().unwrap();
    assert_eq!(messages[0]["content"], "be brief");
    assert_eq!(messages[1]["content"], "two\nlines");
    assert_eq!(messages.len(), 3);
    assert_eq!(conversation["add_generation_prompt"], true);
}

#[test]
fn a_loaded_conversation_that_ends_with_a_question_is_answered_at_once() {
    let model = Model::with(Some(TEMPLATE));
    let load = |name: &str, messages: Value, lines: &str| {
        let path = model.0.path().join(name);
        fs::write(&path, json!({ "messages": messages }).to_string()).unwrap();
        turns(&model.chat(&["--json"], &format!("/load {}\n{lines}", path.display())))
    };
    let user = json!({ "role": "user", "content": "hello" });
    let assistant = json!({ "role": "assistant", "content": "hi" });
    let tool = json!({ "role": "tool", "content": "5" });
    let typed = turns(&model.chat(&["--json"], "hello\n"));
    let loaded = load("user.json", json!([user]), "");
    assert_eq!((loaded.len(), &loaded[0]["ids"]), (1, &typed[0]["ids"]));
    // The answer is part of the conversation, so the next message follows it.
    let saved = model.0.path().join("saved.json");
    assert_eq!(load("user.json", json!([user]), &format!("more\n/save {}\n", saved.display())).len(), 2);
    let saved: Value = serde_json::from_str(&fs::read_to_string(saved).unwrap()).unwrap();
    let roles: Vec<&str> =
        saved["messages"].as_array().unwrap().iter().filter_map(|message| message["role"].as_str()).collect();
    assert_eq!(roles, ["user", "assistant", "user", "assistant"]);
    assert_eq!(load("tool.json", json!([user, assistant, tool]), "").len(), 1);
    assert!(load("assistant.json", json!([user, assistant]), "").is_empty());
}

#[test]
fn reasoning_is_apart_from_the_answer() {
    // The prompt opens a block that this model, with its random weights, never closes.
    let model = Model::with(Some(&format!("{TEMPLATE}<think>\n{{# </think> #}}")));
    let run = |more: &[&str]| {
        let fixed = ["run", model.path(), "--backend", "cpu", "-n", "8", "--seed", "23", "-p", "hello"];
        let answer = Handmill::new().run(&[&fixed, more].concat());
        answer.assert_ok();
        answer
    };
    let json: Value = serde_json::from_str(&run(&["--json"]).stdout).unwrap();
    assert_eq!(json["text"], "");
    assert!(json["reasoning"].as_str().is_some_and(|text| !text.is_empty()), "{json}");
    let plain = run(&[]);
    assert_eq!(plain.stdout.trim(), "");
    assert!(plain.stderr.contains(json["reasoning"].as_str().unwrap().trim()), "{}", plain.stderr);
    // Quiet means errors alone on standard error, in a chat as well; JSON still has the reasoning.
    let quiet = run(&["-q"]);
    assert_eq!((&quiet.stderr[..], &quiet.stdout), ("", &plain.stdout));
    let chat = model.chat(&["--quiet"], "hello\n");
    assert_eq!((&chat.stderr[..], chat.stdout.trim()), ("", ""));
    assert!(!model.chat(&[], "hello\n").stderr.is_empty());
    assert_eq!(turns(&model.chat(&["--quiet", "--json"], "hello\n"))[0]["reasoning"], json["reasoning"]);
}
