//! Complete replies with calls, as each template writes them.

use super::tests::{Part, c, ci, r, t};

pub(super) const HERMES: &str = "Let me.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>\n\
    <tool_call>\n{\"name\": \"g\", \"arguments\": {}}\n</tool_call>";
/// The end of a Llama prompt with tools.
pub(super) const TOOLS: &str = "\"parameters\": dictionary of argument name and its value}\n\n";

/// `(syntax, what a prompt ends with, a complete call, its parts)`: calls as templates write them.
pub(super) fn complete() -> Vec<(&'static str, &'static str, &'static str, Vec<Part>)> {
    let city = r#"{"city": "Zü \"q\" <b>", "days": 2}"#;
    let both = || vec![t("Let me."), c("f", r#"{"a": 1}"#), c("g", "{}")];
    vec![
        ("hermes", "\n", HERMES, both()),
        (
            "hermes",
            "\n",
            "<tool_call>{\"arguments\": {\"x\": \"</tool_call>\"}, \"name\": \"f\"}</tool_call>\nand",
            vec![c("f", r#"{"x": "</tool_call>"}"#), t("and")],
        ),
        ("hermes", "\n", r#"<tool_call>{"name": "f"}</tool_call>"#, vec![c("f", "{}")]),
        (
            "hermes",
            "\n",
            "<tool_call>{\"name\": \"f\", \"arguments\": \"{\\\"a\\\":1}\"}</tool_call>",
            vec![c("f", r#"{"a":1}"#)],
        ),
        (
            "think + hermes",
            "<think>\n",
            "I call <tool_call>\n</think>\n\n<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>",
            vec![r("I call <tool_call>"), c("f", "{}")],
        ),
        (
            "apriel",
            "\n",
            r#"Let me.
<tool_calls>[{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}]</tool_calls>"#,
            both(),
        ),
        (
            "phi",
            ">",
            "Let me.<|tool_call|>{\"name\": \"f\", \"arguments\": {\"a\": 1}}<|/tool_call|><|tool_call|>\
                [{\"name\": \"g\", \"arguments\": {}}]<|/tool_call|>",
            both(),
        ),
        (
            "granite",
            ">",
            r#"Let me.<|tool_call|>[{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}]"#,
            both(),
        ),
        ("gigachat", "\n", r#"Let me.<|function_call|>{"name": "f", "arguments": {"a": 1}}"#, both()[..2].to_vec()),
        (
            "functools",
            "\n",
            r#"Let me. functools[{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}]"#,
            both(),
        ),
        ("apertus", ">", r#"Let me.<|tools_prefix|>[{"f": {"a": 1}}, {"g": {}}]<|tools_suffix|>"#, both()),
        (
            "command-r",
            ">",
            "Let me.\nAction:\n```json\n[\n    {\n        \"tool_name\": \"f\",\n        \"parameters\": \
                {\"a\": 1}\n    },\n    {\n        \"tool_name\": \"g\",\n        \"parameters\": {}\n    }\n\
                ]```\n",
            both(),
        ),
        (
            "cohere-thinking + command-r7b",
            ">",
            "<|START_THINKING|>hmm<|END_THINKING|><|START_ACTION|>[\n    {\"tool_call_id\": \"0\", \"tool_nam\
                e\": \"f\", \"parameters\": {\"a\": 1}},\n    {\"tool_call_id\": \"1\", \"tool_name\": \"g\", \
                \"parameters\": {}}\n]<|END_ACTION|>",
            vec![r("hmm"), ci("f", "0", r#"{"a": 1}"#), ci("g", "1", "{}")],
        ),
        (
            "mistral-list",
            "[/INST]",
            "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"a\": 1}, \"id\": \"callabcd1\"}, {\"name\": \"\
                g\", \"arguments\": {}}]",
            vec![ci("f", "callabcd1", r#"{"a": 1}"#), c("g", "{}")],
        ),
        ("mistral-args", "[/INST]", r#"Let me.[TOOL_CALLS]f[ARGS]{"a": 1}[TOOL_CALLS]g[ARGS]{}"#, both()),
        (
            "mistral-args",
            "[/INST]",
            r#"[TOOL_CALLS]f[CALL_ID]callabcd1[ARGS]{"a": 1}"#,
            vec![ci("f", "callabcd1", r#"{"a": 1}"#)],
        ),
        (
            "deepseek",
            ">",
            "Let me.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"a\": 1}\n```\
                <｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>g\n```json\n{}\n```<｜tool▁call▁end｜\
                ><｜tool▁calls▁end｜>",
            both(),
        ),
        (
            "deepseek",
            ">",
            "Let me.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": 1}<｜tool▁call▁end｜><｜tool▁cal\
                l▁begin｜>g<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
            both(),
        ),
        (
            "think + dsml",
            "<think>",
            "hmm</think>Let me.\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"\
                s\" string=\"true\">5</｜DSML｜parameter>\n<｜DSML｜parameter name=\"n\" string=\"false\">\
                [1, 2]</｜DSML｜parameter>\n</｜DSML｜invoke>\n<｜DSML｜invoke name=\"g\">\n</｜DSML｜invoke>\n\
                </｜DSML｜function_calls>",
            vec![r("hmm"), t("Let me."), c("f", r#"{"s":"5","n":[1, 2]}"#), c("g", "{}")],
        ),
        (
            "think + dsml",
            "</think>",
            "<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"g\">\n\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>",
            vec![c("g", "{}")],
        ),
        (
            "minimax",
            "\n",
            "Let me.\n<minimax:tool_call>\n<invoke name=\"f\">\n<parameter name=\"a\">1</parameter>\n\
                <parameter name=\"city\">Zü \"q\" <b></parameter>\n<parameter name=\"n\">null</parameter>\n\
                </invoke>\n<invoke name=\"g\">\n</invoke>\n</minimax:tool_call>",
            vec![t("Let me."), c("f", r#"{"a":1,"city":"Zü \"q\" <b>","n":null}"#), c("g", "{}")],
        ),
        (
            "mm-think + minimax-nested",
            "\n",
            "<mm:think>hmm</mm:think>Let me.]<]minimax[>[<tool_call>\n]<]minimax[>[<invoke name=\"f\">]\
                <]minimax[>[<city>Zü <b>]<]minimax[>[</city>]<]minimax[>[<o>]<]minimax[>[<a>]<]minimax\
                [>[<item>1]<]minimax[>[</item>]<]minimax[>[<item>b]<]minimax[>[</item>]<]minimax[>[</a>]\
                <]minimax[>[</o>]<]minimax[>[</invoke>\n]<]minimax[>[</tool_call>",
            vec![r("hmm"), t("Let me."), c("f", r#"{"city":"Zü <b>","o":{"a":[1,"b"]}}"#)],
        ),
        (
            "kimi",
            ">",
            "Let me.<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>\
                {\"a\": 1}<|tool_call_end|><|tool_call_begin|>functions.g:1<|tool_call_argument_begin|>\
                {}<|tool_call_end|><|tool_calls_section_end|>",
            vec![t("Let me."), ci("f", "functions.f:0", r#"{"a": 1}"#), ci("g", "functions.g:1", "{}")],
        ),
        // A control token ends reasoning.
        (
            "think + kimi",
            "<think>",
            "hmm <|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>\
                {}<|tool_call_end|><|tool_calls_section_end|>",
            vec![r("hmm"), ci("f", "functions.f:0", "{}")],
        ),
        (
            "glm",
            "\n",
            "Let me.\n<tool_call>f\n<arg_key>city</arg_key>\n<arg_value>Zü \"q\" <b></arg_value>\n<arg_key>da\
                ys</arg_key>\n<arg_value>2</arg_value>\n<arg_key>o</arg_key>\n<arg_value>{\"a\": [1, \"b\"]}\
                </arg_value>\n</tool_call>\n<tool_call>g\n</tool_call>",
            vec![t("Let me."), c("f", r#"{"city":"Zü \"q\" <b>","days":2,"o":{"a": [1, "b"]}}"#), c("g", "{}")],
        ),
        (
            "think + glm",
            "<think>",
            "hmm</think><tool_call>f<arg_key>a</arg_key><arg_value>x</arg_value></tool_call><tool_call>g</tool_call>",
            vec![r("hmm"), c("f", r#"{"a":"x"}"#), c("g", "{}")],
        ),
        (
            "xml-function",
            "\n",
            "Let me.\n\n<tool_call>\n<function=f>\n<parameter=city>\nZü \"q\" <b>\n</parameter>\n<parameter=d\
                ays>\n2\n</parameter>\n<parameter=t>\nTrue\n</parameter>\n<parameter=n>\nNone\n</parameter>\n\
                <parameter=m>\n a\nb \n</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=g>\n\
                </function>\n</tool_call>",
            vec![
                t("Let me."),
                c("f", r#"{"city":"Zü \"q\" <b>","days":2,"t":true,"n":null,"m":" a\nb "}"#),
                c("g", "{}"),
            ],
        ),
        (
            "xml-function",
            "\n",
            "<function=f>\n<parameter=a>\n1\n</parameter>\n</function>\n",
            vec![c("f", r#"{"a":1}"#)],
        ),
        (
            "seed-think + seed",
            "\n",
            "<seed:think>hmm</seed:think>\nLet me.\n\n<seed:tool_call>\n<function=f>\n<parameter=o>{'a': \
                [1, 'b']}</parameter>\n</function>\n</seed:tool_call>",
            vec![r("hmm"), t("Let me."), c("f", r#"{"o":{"a":[1,"b"]}}"#)],
        ),
        (
            "minicpm",
            "\n",
            "Let me.\n<function name=\"f\"><param name=\"city\"><![CDATA[Zü <b>]]></param><param name=\"d\">2\
                </param><param name=\"t\">True</param></function>\n<function name=\"g\"></function>",
            vec![t("Let me."), c("f", r#"{"city":"Zü <b>","d":2,"t":true}"#), c("g", "{}")],
        ),
        (
            "pythonic",
            "\n",
            "Let me.<|tool_call_start|>[f(city='Zü \"q\"', days=2, x=-1.5, t=True, n=None, o={\"a\": \
                [1, 'b)']}), g()]<|tool_call_end|>",
            vec![
                t("Let me."),
                c("f", r#"{"city":"Zü \"q\"","days":2,"x":-1.5,"t":true,"n":null,"o":{"a":[1,"b)"]}}"#),
                c("g", "{}"),
            ],
        ),
        (
            "pythonic",
            "\n",
            r#"<|tool_call_start|>[{"name": "f", "arguments": {"a": 1}}]<|tool_call_end|>"#,
            vec![c("f", r#"{"a": 1}"#)],
        ),
        (
            "gemma-channel + gemma",
            "\n",
            "<|channel>thought\nhmm<channel|><|tool_call>call:f{city:<|\"|>Zü \"q\" {<|\"|>,days:2,f:true,n:N\
                one,o:{a:[1,<|\"|>b<|\"|>]}}<tool_call|><|tool_call>call:g{}<tool_call|>Let me.",
            vec![
                r("hmm"),
                c("f", r#"{"city":"Zü \"q\" {","days":2,"f":true,"n":null,"o":{"a":[1,"b"]}}"#),
                c("g", "{}"),
                t("Let me."),
            ],
        ),
        (
            "solar-think + solar",
            "<|begin|>assistant",
            "<|think|>hmm<|end|><|begin|>assistant<|tool_calls|><|tool_call:begin|>callabcd1<|tool_call:name|\
                >f<|tool_call:args|>{\"a\": 1}<|tool_call:end|><|tool_call:begin|>2<|tool_call:name|>g\
                <|tool_call:args|>{}<|tool_call:end|><|calls|>",
            vec![r("hmm"), ci("f", "callabcd1", r#"{"a": 1}"#), ci("g", "2", "{}")],
        ),
        (
            "solar-think + solar",
            "<|begin|>assistant",
            "<|think|>hmm<|end|><|begin|>assistant<|content|>Done.",
            vec![r("hmm"), t("Done.")],
        ),
        (
            "harmony",
            "<|start|>assistant",
            "<|channel|>analysis<|message|>User says hi.<|end|><|start|>assistant<|channel|>final<|message|>H\
                ello! 👋🏽",
            vec![r("User says hi."), t("Hello! 👋🏽")],
        ),
        (
            "harmony",
            "<|start|>assistant",
            "<|channel|>analysis<|message|>Need weather.<|end|><|start|>assistant<|channel|>commentary to=fun\
                ctions.f <|constrain|>json<|message|>{\"city\":\"Zürich\"}",
            vec![r("Need weather."), c("f", r#"{"city":"Zürich"}"#)],
        ),
        (
            "harmony",
            "<|start|>assistant",
            " to=functions.f<|channel|>commentary json<|message|>{}<|call|>",
            vec![c("f", "{}")],
        ),
        (
            "harmony",
            "<|start|>assistant",
            "<|channel|>commentary<|message|>I call.<|end|><|start|>assistant<|channel|>commentary to=functio\
                ns.f json<|message|>{}",
            vec![t("I call."), c("f", "{}")],
        ),
        ("harmony", "<|channel|>final<|message|>", "Done.", vec![t("Done.")]),
        // Built-in tools: `python` takes code, and a kind `code` does not make others take it.
        (
            "harmony",
            "<|start|>assistant",
            "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>analysis to=python code<|message|>\
                x = {\"a\": 1}\nprint(x)<|call|>",
            vec![r("hm"), c("python", r#"{"code": "x = {\"a\": 1}\nprint(x)"}"#)],
        ),
        (
            "harmony",
            "<|start|>assistant",
            "<|channel|>analysis to=python <|constrain|>code<|message|>{\"a\": 1}",
            vec![c("python", r#"{"code": "{\"a\": 1}"}"#)],
        ),
        (
            "harmony",
            "<|start|>assistant",
            "<|channel|>analysis to=browser.search code<|message|>{\"query\": \"a\"}<|call|>",
            vec![c("browser.search", r#"{"query": "a"}"#)],
        ),
        (
            "harmony",
            "<|start|>assistant",
            "<|channel|>commentary to=functions.python <|constrain|>json<|message|>{\"n\": 1}<|call|>",
            vec![c("python", r#"{"n": 1}"#)],
        ),
        (
            "muse",
            "<|start|>assistant",
            " to=self<|message|>hmm<|eom|><|start|>assistant to=f<|message|><atem:function_calls>\n<atem:invo\
                ke name=\"f\">\n<atem:parameter name=\"a\">x</atem:parameter>\n</atem:invoke>\n</atem:functio\
                n_calls><|eom|><|start|>assistant to=user<|message|>Done.",
            vec![r("hmm"), c("f", r#"{"a":"x"}"#), t("Done.")],
        ),
        ("functionary", ">>>", "all\nLet me.>>>f\n{\"a\": 1}>>>g\n{}", both()),
        ("functionary", ">>>", "all\nType >>> to begin.", vec![t("Type >>> to begin.")]),
        ("llama", TOOLS, r#"{"name": "f", "parameters": {"city": "Zü \"q\" <b>", "days": 2}}"#, vec![c("f", city)]),
        ("llama", "\n", r#"<|python_tag|>{"type": "function", "name": "f", "parameters": {}}"#, vec![c("f", "{}")]),
        (
            "functionary",
            ">>>",
            "all\nLet me.>>>python\nx = 1\n\nprint(x)\n",
            vec![t("Let me."), c("python", r#"{"code": "x = 1\n\nprint(x)"}"#)],
        ),
        ("functionary", ">>>", "python\n{\"n\": 1}", vec![c("python", r#"{"n": 1}"#)]),
        (
            "llama",
            "\n",
            "<|python_tag|>wolfram_alpha.call(query='1 + 1', n=2)<|eom_id|>",
            vec![c("wolfram_alpha", r#"{"query":"1 + 1","n":2}"#)],
        ),
        (
            "llama",
            TOOLS,
            "<|python_tag|>\nimport sys\nprint(f\"{sys.version}\")\n",
            vec![c("code_interpreter", r#"{"code": "import sys\nprint(f\"{sys.version}\")"}"#)],
        ),
        // No keyword arguments, or not all of the reply: code.
        (
            "llama",
            TOOLS,
            "I list.<|python_tag|>subprocess.call([\"ls\"])<|eom_id|>",
            vec![t("I list."), c("code_interpreter", r#"{"code": "subprocess.call([\"ls\"])"}"#)],
        ),
        (
            "llama",
            TOOLS,
            "<|python_tag|>a.call(b=1)\nprint(2)",
            vec![c("code_interpreter", r#"{"code": "a.call(b=1)\nprint(2)"}"#)],
        ),
        ("llama", TOOLS, "<|python_tag|>brave.search.call(query=\"a)\")", vec![c("brave.search", r#"{"query":"a)"}"#)]),
    ]
}
