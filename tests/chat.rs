//! Conversations: each turn runs its own tokens alone, and everything that changes earlier turns is noticed.

mod support;

use handmill_models::{
    Chat, Engine, EngineOptions, Error, GenerateOptions, Model, Reply, StopReason,
    engine::sampling::SamplingParams,
    text::{ChatTemplate, LocalTime, StreamDecoder},
};
use std::ops::ControlFlow;
use support::fixtures_dir;

const TEMPLATE: &str = "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}</s>{% endfor %}\
    {% if add_generation_prompt %}<s>assistant: {% endif %}";

fn now() -> LocalTime {
    LocalTime::new(2025, 6, 17, 9, 30, 0).expect("a time")
}

fn engine(name: &str, n_ctx: usize) -> Engine {
    let model = Model::open(&fixtures_dir().join("families").join(name)).expect("the fixture");
    Engine::new(&model, &EngineOptions { n_ctx: Some(n_ctx), ..EngineOptions::default() }).expect("an engine")
}

fn chat(template: &str) -> Chat {
    Chat::new(ChatTemplate::from_jinja("the test", template).expect("a template"))
}

fn options(max_tokens: usize, seed: u64) -> GenerateOptions {
    let sampling = SamplingParams { seed, ..SamplingParams::default() };
    GenerateOptions { max_tokens: Some(max_tokens), sampling, ..GenerateOptions::default() }
}

fn reply(chat: &mut Chat, engine: &mut Engine, seed: u64) -> Reply {
    chat.reply(engine, &options(12, seed), now(), |_| ControlFlow::Continue(())).expect("a reply")
}

fn ids(engine: &Engine, text: &str) -> usize {
    engine.model().tokenizer().unwrap().encode(text, false, true).unwrap().len()
}

#[test]
fn a_turn_runs_its_own_tokens_alone() {
    for name in ["llama3", "qwen3", "gemma3", "qwen3-next"] {
        let (mut engine, mut chat) = (engine(name, 2048), chat(TEMPLATE));
        for turn in 0..10 {
            let message = format!("message number {turn}");
            chat.say(&message);
            let reply = reply(&mut chat, &mut engine, turn);
            // The last token of the answer before has not been run; its end and the marks around are new as well.
            let own = ids(&engine, &format!("</s><s>user: {message}</s><s>assistant: ")) + 1;
            let ran = reply.stats.prompt_tokens;
            assert!(turn == 0 || ran <= own, "{name}, turn {turn}: {ran} tokens were run, {own} are new");
            assert_eq!(reply.left_out, 0);
        }
        assert_eq!(chat.conversation().messages.len(), 20);
    }
}

/// Whether a model began its answer with a space.
fn begins_with_space(engine: &Engine, reply: &Reply) -> bool {
    let mut decoder = StreamDecoder::continuing(&**engine.model().tokenizer().unwrap(), false);
    reply.stats.generated.iter().find_map(|&id| Some(decoder.push(id)?.starts_with(' '))).unwrap_or(false)
}

/// Prompts that end without white space: a template puts a space in front of the answers of earlier turns or does not,
/// and the model wrote one or did not.
#[test]
fn a_space_in_front_of_an_answer_does_not_make_it_run_again() {
    for space in [" ", ""] {
        let template = "{% for m in messages %}{% if m.role == 'user' %}USER: {{ m.content }} {% else %}\
            ASSISTANT:SPACE{{ m.content }}</s>{% endif %}{% endfor %}\
            {% if add_generation_prompt %}ASSISTANT:{% endif %}"
            .replace("SPACE", space);
        let mut otherwise = 0;
        for name in ["llama3", "qwen3", "gemma3", "qwen3-next"] {
            let (mut engine, mut chat) = (engine(name, 2048), chat(&template));
            for turn in 0..8 {
                let message = format!("message number {turn}");
                chat.say(&message);
                // The first seed with an answer that begins otherwise than the template writes it.
                for attempt in 0..50 {
                    let reply = reply(&mut chat, &mut engine, 100 * turn + attempt);
                    let own = ids(&engine, &format!("</s>USER: {message} ASSISTANT:")) + 1;
                    let ran = reply.stats.prompt_tokens;
                    let again = turn == 0 || attempt > 0;
                    assert!(again || ran <= own, "{name}, turn {turn}: {ran} tokens were run, {own} are new");
                    if begins_with_space(&engine, &reply) == space.is_empty() {
                        otherwise += 1;
                        break;
                    }
                    if attempt < 49 {
                        chat.forget_reply();
                    }
                }
            }
        }
        assert!(otherwise > 8, "{otherwise} answers begin otherwise than the template writes them");
    }
}

#[test]
fn a_conversation_that_went_on_answers_as_one_that_is_read_anew() {
    let (mut engine, mut chat) = (engine("llama3", 2048), chat(TEMPLATE));
    for turn in 0..3 {
        chat.say(&format!("message number {turn}"));
        reply(&mut chat, &mut engine, turn);
    }
    // Greedy, so that both depend on the logits alone.
    let greedy = GenerateOptions { sampling: SamplingParams::greedy(), ..options(12, 0) };
    let mut again = self::chat(TEMPLATE);
    *again.conversation_mut() = chat.conversation().clone();
    for chat in [&mut chat, &mut again] {
        chat.say("and now?");
    }
    let warm = chat.reply(&mut engine, &greedy, now(), |_| ControlFlow::Continue(())).expect("a reply");
    let alike = again.reply(&mut engine, &greedy, now(), |_| ControlFlow::Continue(())).expect("a reply");
    let mut anew = self::chat(TEMPLATE);
    *anew.conversation_mut() = again.conversation().clone();
    assert!(anew.forget_reply());
    let cold = anew.reply(&mut self::engine("llama3", 2048), &greedy, now(), |_| ControlFlow::Continue(()));
    let cold = cold.expect("a reply");
    // Two conversations of one engine share what they have in common.
    assert!(warm.reused > 0 && alike.reused > 0 && cold.reused == 0);
    assert_eq!(alike.stats.generated, cold.stats.generated);
    // Tokens that the model chose may be others than those of the same text, but only for a text that has several.
    if warm.reused + warm.stats.prompt_tokens == cold.stats.prompt_tokens {
        assert_eq!(warm.stats.generated, cold.stats.generated);
    }
}

#[test]
fn changed_messages_are_run_anew_from_where_they_change() {
    for name in ["llama3", "mistral", "qwen3-next"] {
        let (mut engine, mut chat) = (engine(name, 2048), chat(TEMPLATE));
        chat.conversation_mut().set_system("be brief");
        chat.say("first");
        let first = reply(&mut chat, &mut engine, 1);
        chat.say("second");
        reply(&mut chat, &mut engine, 2);
        assert!(chat.undo(), "the second message is taken back");
        assert_eq!(chat.conversation().messages.len(), 3);
        assert!(chat.forget_reply());
        let again = reply(&mut chat, &mut engine, 1);
        assert_eq!(again.stats.generated, first.stats.generated, "{name}: the same seed, the same answer");
        chat.conversation_mut().set_system("be verbose");
        chat.say("third");
        let third = reply(&mut chat, &mut engine, 1);
        assert!(third.reused < ids(&engine, "<s>system: be verbose"), "{name}");
        chat.reset();
        assert_eq!(chat.conversation().messages.len(), 1, "the system message stays");
        assert!(!chat.undo() && !chat.forget_reply());
    }
}

#[test]
fn long_conversations_lose_their_oldest_turns() {
    let (mut engine, mut chat) = (engine("llama3", 256), chat(TEMPLATE));
    chat.conversation_mut().set_system("be brief");
    let mut left_out = 0;
    for turn in 0..20 {
        chat.say(&format!("message number {turn}"));
        let reply = reply(&mut chat, &mut engine, turn);
        assert!(reply.left_out >= left_out && reply.left_out.is_multiple_of(2), "whole turns");
        assert!(reply.reused + reply.stats.prompt_tokens <= 256);
        left_out = reply.left_out;
    }
    assert!(left_out > 0);
    assert_eq!(chat.conversation().messages.len(), 41, "the conversation itself stays whole");
    chat.say(&"far too long ".repeat(200));
    let too_long = chat.reply(&mut engine, &options(12, 0), now(), |_| ControlFlow::Continue(()));
    assert!(matches!(too_long, Err(Error::ContextFull { n_ctx: 256, .. })), "{too_long:?}");
    assert!(chat.undo());
    chat.say("short again");
    reply(&mut chat, &mut engine, 0);
}

/// Models that cannot go back any way they like: with full attention alone, a sliding window, recurrent states.
#[test]
fn a_conversation_that_goes_back_finds_what_it_had() {
    for name in ["llama3", "gemma3", "qwen3-next"] {
        let (mut engine, mut chat) = (engine(name, 2048), chat(TEMPLATE));
        let system = "be brief, and ".repeat(30);
        let pages = |tokens: usize| tokens / 64 * 64;
        chat.conversation_mut().set_system(&system);
        chat.say("first");
        let first = reply(&mut chat, &mut engine, 1);
        let prompt = first.reused + first.stats.prompt_tokens;
        assert!(first.reused == 0 && prompt > 128, "{name}: {prompt} tokens");
        chat.say("second");
        reply(&mut chat, &mut engine, 2);
        // The last answer again, and then the first one.
        for turn in [2, 1] {
            if turn == 1 {
                assert!(chat.undo());
            }
            assert!(chat.forget_reply());
            let again = reply(&mut chat, &mut engine, turn);
            assert!(again.reused >= pages(prompt - 1), "{name}, turn {turn}: {} of {prompt}", again.reused);
            assert!(turn == 2 || again.stats.generated == first.stats.generated, "{name}");
        }
        // Another conversation with the same beginning, and the first one again.
        chat.reset();
        for text in ["something else", "first"] {
            chat.reset();
            chat.say(text);
            let reply = reply(&mut chat, &mut engine, 1);
            let least = if text == "first" { pages(prompt - 1) } else { pages(ids(&engine, &system)) - 64 };
            assert!(reply.reused >= least, "{name}, {text}: {} of {prompt}, {least}", reply.reused);
            assert!(text != "first" || reply.stats.generated == first.stats.generated, "{name}");
        }
    }
}

#[test]
fn a_reply_that_is_broken_off_stays_and_the_chat_goes_on() {
    let (mut engine, mut chat) = (engine("llama3", 2048), chat(TEMPLATE));
    chat.say("first");
    let mut heard = String::new();
    let broken = chat.reply(&mut engine, &options(200, 3), now(), |event| {
        if let handmill_models::text::ReplyEvent::Text(text) = event {
            heard.push_str(text);
        }
        ControlFlow::Break(())
    });
    let broken = broken.expect("a reply");
    assert_eq!((broken.stats.stop, &broken.text), (StopReason::Cancelled, &heard));
    chat.say("second");
    let second = reply(&mut chat, &mut engine, 4);
    assert!(second.reused > 0);
}

#[test]
fn a_reply_that_is_cancelled_before_it_begins_leaves_no_message() {
    let (mut engine, mut chat) = (engine("llama3", 2048), chat(TEMPLATE));
    chat.say("first");
    let cancel = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let cancelled = GenerateOptions { cancel: Some(cancel), ..options(8, 1) };
    let none = chat.reply(&mut engine, &cancelled, now(), |_| ControlFlow::Continue(())).expect("a reply");
    assert!(none.is_empty() && none.stats.stop == StopReason::Cancelled);
    assert_eq!(chat.conversation().messages.len(), 1);
    reply(&mut chat, &mut engine, 1);
    assert_eq!(chat.conversation().messages.len(), 2);
}

#[test]
fn a_template_that_refuses_changes_nothing() {
    let refuses =
        "{% if messages[-1].content == 'no' %}{{ raise_exception('not that') }}{% endif %}".to_owned() + TEMPLATE;
    let (mut engine, mut chat) = (engine("llama3", 2048), chat(&refuses));
    chat.say("no");
    let refused = chat.reply(&mut engine, &options(4, 0), now(), |_| ControlFlow::Continue(()));
    assert!(refused.unwrap_err().to_string().contains("not that"));
    assert_eq!(chat.conversation().messages.len(), 1);
    assert!(chat.undo());
    chat.say("yes");
    reply(&mut chat, &mut engine, 0);
}

#[test]
fn a_template_that_rewrites_earlier_turns_is_followed() {
    // The last answer is shown otherwise than it was written.
    let template =
        TEMPLATE.replace("{{ m.content }}", "{{ m.content | upper if m.role == 'assistant' else m.content }}");
    let (mut engine, mut chat) = (engine("llama3", 2048), chat(&template));
    let mut kept = Vec::new();
    for turn in 0..4 {
        chat.say(&format!("message number {turn}"));
        // Seeds whose answers have letters: others are the same in capitals.
        let reply = reply(&mut chat, &mut engine, turn + 1);
        kept.push((reply.reused, reply.reused + reply.stats.prompt_tokens));
    }
    for pair in kept.windows(2) {
        // All of the prompt before stays, but not the answer.
        assert!(pair[1].0 + 2 >= pair[0].1 && pair[1].0 < pair[1].1, "{kept:?}");
    }
}
