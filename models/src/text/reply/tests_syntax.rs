//! How a template's source tells its syntax, and what the tables of syntaxes must keep to.

use super::{ReplyParser, ReplySyntax};

#[test]
fn syntaxes_of_small_templates() {
    let rows = [
        ("{% for m in messages %}{{ m.content }}{% endfor %}", "text"),
        ("{{ '<think>\\n' + m.reasoning_content + '\\n</think>\\n\\n' }}", "think"),
        ("{% set content = content.split('</think>')[-1] %}", "think"),
        ("Write thoughts between <think></think> and the answer between <response></response>", "think-response"),
        ("<think></think> {{ '<response>' + m.content + '</response>' }}", "think"),
        ("<seed:think><seed:tool_call>\\n<function=", "seed-think + seed"),
        ("<think> <tool_call>\\n{\"name\": ", "think + hermes"),
        ("<tool_call>\\n<function=name>", "xml-function"),
        ("<tool_call>{{ name }}<arg_key>", "glm"),
        ("<tool_call> or <tool_calls>[", "apriel"),
        ("set ns = ']<]minimax[>[' <mm:think> <tool_call> <invoke name=", "mm-think + minimax-nested"),
        ("<minimax:tool_call>\\n<invoke name=", "minimax"),
        ("{% set dsml_token = '｜DSML｜' %}<think>", "think + dsml"),
        ("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>", "deepseek"),
        ("<|tool_calls_section_begin|>", "kimi"),
        ("[TOOL_CALLS] [", "mistral-list"),
        ("[TOOL_CALLS]name[ARGS]", "mistral-args"),
        ("[THINK]x[/THINK][TOOL_CALLS]name[ARGS]", "mistral-think + mistral-args"),
        ("<|tool_call|>[", "granite"),
        ("<|tool_call|>{<|/tool_call|>", "phi"),
        ("<|START_THINKING|><|START_ACTION|>[", "cohere-thinking + command-r7b"),
        ("Action:\\n```json\\n[", "command-r"),
        ("<|inner_prefix|><|tools_prefix|>", "apertus-inner + apertus"),
        ("<|function_call|>", "gigachat"),
        ("functools[", "functools"),
        ("<function name=\"f\"><param name=", "minicpm"),
        ("<|tool_call_start|>[", "pythonic"),
        ("<|channel>thought\\n<|tool_call>call:", "gemma-channel + gemma"),
        ("<|start|>assistant<|channel|>analysis<|message|>", "harmony"),
        ("to=self<|message|><atem:function_calls>", "muse"),
        ("<|think|><|content|><|tool_call:begin|>", "solar-think + solar"),
        (">>>${recipient}\\n${content}", "functionary"),
        ("{\"name\": function name, \"parameters\": dictionary of argument name and its value}", "llama"),
    ];
    for (source, name) in rows {
        assert_eq!(ReplySyntax::of_template(source).name(), name, "{source}");
        assert_eq!(ReplySyntax::named(name).map(|s| s.name()).as_deref(), Some(name));
    }
    assert!(ReplySyntax::named("unheard-of").is_none());
}

/// The parser acts on a marker as soon as it is whole, and drops spaces in front of it.
#[test]
fn no_marker_begins_another() {
    for (syntax, prompt, ..) in super::tests_complete::complete() {
        let parser = ReplyParser::new(&ReplySyntax::named(syntax).expect("a known name"), prompt);
        let markers: Vec<&str> = parser.markers().collect();
        for a in &markers {
            assert!(!a.is_empty() && !a.starts_with(char::is_whitespace), "{syntax}: {a:?}");
            assert!(markers.iter().all(|b| a == b || !b.starts_with(a)), "{syntax}: {a:?}");
        }
    }
}

#[test]
fn parsers_go_between_threads() {
    fn check<T: Send>() {}
    check::<ReplyParser>();
    check::<ReplySyntax>();
}
