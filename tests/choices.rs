//! Choices of tokens on every backend: each row by its own rule, whatever else a step has, and however many steps are under
//! way.

mod support;

use handmill_models::{
    Engine, EngineOptions, Error, Model,
    engine::{KvChoice, PrecisionChoice, Sequence, Step},
};
use handmill_runtime::{
    sample::{Choice, Chosen, SamplingParams},
    step::{Outputs, StepError, Ticket, Tokens},
};
use support::fixtures_dir;

/// The CPU, and where there is a GPU that and both together; all exact, so that they choose the same.
fn engines(name: &str) -> Vec<Engine> {
    let model = Model::open(&fixtures_dir().join("families").join(name)).expect("the fixture");
    let (kv, precision) = (KvChoice::F32, PrecisionChoice::Exact);
    let options = EngineOptions { kv, precision, n_ctx: Some(512), ..EngineOptions::default() };
    support::engines("choices", &model, &options)
}

/// A rule, and what is asked for beside it.
struct Rule {
    params: SamplingParams,
    prompt: &'static [u32],
    allowed: Option<Vec<u32>>,
    log_probabilities: Option<usize>,
}

fn rules() -> Vec<Rule> {
    let rule = |params, prompt| Rule { params, prompt, allowed: None, log_probabilities: None };
    let warm = SamplingParams { temperature: 1.2, top_k: 0, top_p: 1.0, min_p: 0.0, ..SamplingParams::default() };
    vec![
        rule(SamplingParams::greedy(), &[1, 5, 2, 9, 7, 3]),
        rule(SamplingParams { seed: 4, ..warm.clone() }, &[3]),
        Rule { log_probabilities: Some(3), ..rule(SamplingParams { seed: 5, ..warm.clone() }, &[8, 8, 4]) },
        // Every token once at most, so that tokens that are only just chosen count.
        Rule {
            log_probabilities: Some(0),
            ..rule(
                SamplingParams { presence_penalty: 1e4, penalty_last_n: usize::MAX, ..SamplingParams::greedy() },
                &[2, 6],
            )
        },
        rule(SamplingParams { frequency_penalty: 9.0, penalty_last_n: 3, seed: 7, ..warm.clone() }, &[2, 6, 2, 2]),
        // The even ones.
        Rule { allowed: Some(vec![0x5555_5555; 4]), ..rule(SamplingParams { seed: 6, ..warm.clone() }, &[4, 1]) },
        Rule {
            allowed: Some(vec![u32::MAX; 200]),
            log_probabilities: Some(40),
            ..rule(
                SamplingParams { repetition_penalty: 3.0, logit_bias: vec![(9, 2.0)], ..SamplingParams::greedy() },
                &[7],
            )
        },
    ]
}

impl Rule {
    fn choice(&self) -> Choice<'_> {
        let mut choice = Choice::new(&self.params);
        (choice.allowed, choice.log_probabilities) = (self.allowed.as_deref(), self.log_probabilities);
        choice
    }
}

/// Tokens of an answer.
const LEN: usize = 12;

/// The answers of all rules in common steps, each submitted before the one before it is collected; `company` runs along
/// without a choice.
fn together(engine: &mut Engine, rules: &[Rule], company: bool) -> Vec<Vec<Chosen>> {
    let mut sequences: Vec<Sequence> = rules.iter().map(|_| engine.sequence()).collect();
    let mut other = engine.sequence();
    let mut answers = vec![Vec::new(); rules.len()];
    let mut last: Option<Ticket> = None;
    let vocab = engine.model().info().vocab_size;
    for _ in 0..LEN {
        let mut steps: Vec<Step<'_>> = sequences
            .iter_mut()
            .zip(rules)
            .enumerate()
            .map(|(i, (sequence, rule))| {
                let tokens = last.map_or(Tokens::Ids(rule.prompt), |ticket| Tokens::Chosen(ticket, i));
                Step::new(sequence, tokens, Outputs::None).choosing(rule.choice())
            })
            .collect();
        if company {
            steps.insert(2, Step::new(&mut other, &[1, 2, 3], Outputs::Last));
        }
        let ticket = engine.submit(&mut steps).expect("a step");
        if let Some(before) = last.replace(ticket) {
            collect(engine, before, &mut sequences, &mut answers, company, vocab, true);
        }
    }
    collect(engine, last.expect("a step"), &mut sequences, &mut answers, company, vocab, false);
    for (sequence, rule) in sequences.iter_mut().zip(rules) {
        assert_eq!(sequence.len(), rule.prompt.len() + LEN - 1);
    }
    answers
}

fn collect(
    engine: &mut Engine,
    ticket: Ticket,
    sequences: &mut [Sequence],
    answers: &mut [Vec<Chosen>],
    company: bool,
    vocab: usize,
    confirm: bool,
) {
    let output = engine.collect(ticket).expect("a step's end");
    assert_eq!(output.logits.len(), if company { vocab } else { 0 }, "nobody else asked for logits");
    for ((chosen, answer), sequence) in output.chosen.into_iter().zip(answers).zip(sequences) {
        if confirm {
            sequence.confirm(chosen.token.expect("a token"));
        }
        answer.push(chosen);
    }
}

/// One rule's answer from logits on the host, a step at a time.
fn alone(engine: &mut Engine, rule: &Rule) -> Vec<Chosen> {
    let mut sequence = engine.sequence();
    let mut tokens = rule.prompt.to_vec();
    let mut answer = Vec::new();
    let mut sampler = handmill_runtime::sample::Sampler::default();
    let mut new = rule.prompt.to_vec();
    for _ in 0..LEN {
        let logits = engine.prefill(&mut sequence, &new).expect("logits");
        let mut choice = rule.choice();
        choice.recent = &tokens;
        answer.push(sampler.choose(logits, &choice, &[], tokens.len() - 1));
        new = vec![answer.last().and_then(|c| c.token).expect("a token")];
        tokens.extend(&new);
    }
    answer
}

#[track_caller]
fn assert_same(what: &str, got: &[Chosen], want: &[Chosen], exact: bool) {
    for (k, (got, want)) in got.iter().zip(want).enumerate() {
        assert_eq!(got.token, want.token, "{what}, token {k}");
        let pairs = |c: &Chosen| c.log_probability.iter().copied().chain(c.likeliest.iter().map(|x| x.1)).collect();
        let (a, b): (Vec<f32>, Vec<f32>) = (pairs(got), pairs(want));
        let near = a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| (a - b).abs() < if exact { 1e-9 } else { 1e-3 });
        assert!(near, "{what}, token {k}: {got:?} for {want:?}");
        if let Some(own) = got.likeliest.iter().find(|x| Some(x.0) == got.token) {
            assert_eq!(Some(own.1), got.log_probability, "{what}: one number");
        }
    }
    assert_eq!(got.len(), want.len());
}

#[test]
fn every_row_chooses_by_its_own_rule() {
    // Full attention, windows, recurrent states.
    for name in ["llama2", "gemma3", "qwen3-next"] {
        let rules = rules();
        let mut of_cpu = None;
        for mut engine in engines(name) {
            let what = format!("{name} on {}", engine.backend().describe());
            let on_cpu = of_cpu.is_none();
            let all = together(&mut engine, &rules, false);
            let mixed = together(&mut engine, &rules, true);
            for (i, rule) in rules.iter().enumerate() {
                let own = alone(&mut engine, rule);
                assert_same(&format!("{what}, rule {i}"), &all[i], &own, on_cpu);
                assert_same(&format!("{what}, rule {i} in company"), &mixed[i], &own, on_cpu);
                let own: Vec<u32> = own.into_iter().filter_map(|c| c.token).collect();
                match i {
                    3 => assert!((1..own.len()).all(|k| !own[..k].contains(&own[k])), "{what}: {own:?}"),
                    5 => assert!(own.iter().all(|t| t % 2 == 0), "{what}: {own:?}"),
                    _ => {}
                }
            }
            // One stream of random numbers, and the same arithmetic but for rounding.
            let first = of_cpu.get_or_insert_with(|| all.clone());
            for (i, (got, want)) in all.iter().zip(first).enumerate() {
                assert_same(&format!("{what} and the CPU, rule {i}"), got, want, false);
            }
            assert_eq!(engine.backend().pages().bytes_in_use(), 0, "{what}");
        }
    }
}

#[test]
fn steps_that_went_too_far_are_taken_back() {
    for name in ["llama2", "gemma3", "qwen3-next"] {
        for mut engine in engines(name) {
            let what = format!("{name} on {}", engine.backend().describe());
            let greedy = SamplingParams::greedy();
            let prompt = [1, 5, 2, 9, 7, 3];
            let want = engine.generate_ids(&prompt, &greedy, 8).expect("an answer");
            let mut sequence = engine.sequence();
            let submit = |engine: &mut Engine, sequence: &mut Sequence, tokens: Tokens<'_>| {
                let step = Step::new(sequence, tokens, Outputs::None).choosing(Choice::new(&greedy));
                engine.submit(&mut [step]).map_err(|e| e.to_string())
            };
            let mut tickets = vec![submit(&mut engine, &mut sequence, Tokens::Ids(&prompt)).expect("a prompt")];
            for _ in 0..3 {
                let last = Tokens::Chosen(tickets[tickets.len() - 1], 0);
                tickets.push(submit(&mut engine, &mut sequence, last).expect("a step"));
            }
            let refused = submit(&mut engine, &mut sequence, Tokens::Chosen(tickets[3], 0)).expect_err("one too many");
            assert_eq!(refused, StepError::TooManyUnderWay { limit: 4 }.to_string());
            // The first token ends the answer: three steps went too far.
            let tokens: Vec<u32> =
                tickets.iter().map(|t| engine.collect(*t).expect("a token").chosen[0].token.expect("one")).collect();
            assert_eq!(tokens, want[..4], "{what}");
            assert_eq!(sequence.len(), prompt.len() + 3);
            engine.take_back(&mut sequence).expect("its own");
            assert_eq!(sequence.len(), prompt.len(), "{what}");
            // It goes on from there as if nothing had been.
            let mut got = vec![tokens[0]];
            while got.len() < 8 {
                let step =
                    Step::new(&mut sequence, &got[got.len() - 1..], Outputs::None).choosing(Choice::new(&greedy));
                let ticket = engine.submit(&mut [step]).expect("a step");
                got.push(engine.collect(ticket).expect("a token").chosen[0].token.expect("one"));
            }
            assert_eq!(got, want, "{what}");
            let twice = engine.collect(tickets[0]).expect_err("collected").to_string();
            assert_eq!(twice, StepError::NotUnderWay.to_string());
        }
    }
}

#[test]
fn numbers_behind_unconfirmed_tokens_are_refused() {
    let mut engine = engines("llama2").swap_remove(0);
    let greedy = SamplingParams::greedy();
    let mut sequence = engine.sequence();
    let step = Step::new(&mut sequence, &[1, 5, 2], Outputs::None).choosing(Choice::new(&greedy));
    let first = engine.submit(&mut [step]).expect("a prompt");
    let step = Step::new(&mut sequence, Tokens::Chosen(first, 0), Outputs::None).choosing(Choice::new(&greedy));
    let second = engine.submit(&mut [step]).expect("a step");
    let tokens =
        [first, second].map(|ticket| engine.collect(ticket).expect("its end").chosen[0].token.expect("a token"));
    let go_on = |engine: &mut Engine, sequence: &mut Sequence| {
        engine.step(&mut [Step::new(sequence, &tokens[1..], Outputs::Last)]).map(<[f32]>::to_vec)
    };
    // The sequence does not know yet which token it holds.
    let refused = go_on(&mut engine, &mut sequence).expect_err("an unconfirmed token");
    assert!(matches!(refused, Error::Unconfirmed { tokens: 1 }), "{refused}");
    sequence.confirm(tokens[0]);
    let got = go_on(&mut engine, &mut sequence).expect("it goes on");
    let mut whole = engine.sequence();
    let want = engine.prefill(&mut whole, &[1, 5, 2, tokens[0], tokens[1]]).expect("a prompt");
    assert_eq!(got, want);
}
