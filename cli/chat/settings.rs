//! The parameters that `/set` changes.

use handmill_models::{GenerateOptions, engine::sampling::SamplingParams};

/// A parameter: its name, which is also the option's, and how it is read and shown.
struct Setting {
    name: &'static str,
    show: fn(&GenerateOptions) -> String,
    set: fn(&mut GenerateOptions, &str) -> Option<()>,
}

macro_rules! of_sampling {
    ($($name:literal $field:ident),+) => {
        [$(Setting {
            name: $name,
            show: |options| options.sampling.$field.to_string(),
            set: |options, value| Some(options.sampling.$field = value.parse().ok()?),
        }),+]
    };
}

const SAMPLING: &[Setting] = &of_sampling!(
    "temp" temperature,
    "top-k" top_k,
    "top-p" top_p,
    "min-p" min_p,
    "repeat-penalty" repetition_penalty,
    "presence-penalty" presence_penalty,
    "frequency-penalty" frequency_penalty,
    "seed" seed
);

const MAX_TOKENS: Setting = Setting {
    name: "max-tokens",
    show: |options| options.max_tokens.map_or_else(|| "-1".to_owned(), |n| n.to_string()),
    set: |options, value| {
        options.max_tokens = if value == "-1" { None } else { Some(value.parse().ok()?) };
        Some(())
    },
};

fn all() -> impl Iterator<Item = &'static Setting> {
    SAMPLING.iter().chain([&MAX_TOKENS])
}

/// All parameters with their values, a line each.
pub fn list(options: &GenerateOptions) -> String {
    all().map(|setting| format!("  {:<18} {}", setting.name, (setting.show)(options))).collect::<Vec<_>>().join("\n")
}

/// Sets the parameter `name`; says what is wrong where it cannot.
pub fn set(options: &mut GenerateOptions, name: &str, value: &str) -> Result<String, String> {
    let name = name.trim_start_matches('-').replace('_', "-");
    let Some(setting) = all().find(|setting| setting.name == name) else {
        let names: Vec<&str> = all().map(|setting| setting.name).collect();
        return Err(format!("there is no parameter {name}; there are {}", names.join(", ")));
    };
    let mut changed = options.clone();
    (setting.set)(&mut changed, value).ok_or_else(|| format!("{value:?} is no value of {name}"))?;
    SamplingParams::validate(&changed.sampling).map_err(|e| e.to_string())?;
    *options = changed;
    Ok(format!("{name} is {}", (setting.show)(options)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_set_and_shown() {
        let mut options = GenerateOptions::default();
        for (name, value) in
            [("temp", "0.25"), ("top_k", "7"), ("--seed", "9"), ("max-tokens", "-1"), ("max-tokens", "12")]
        {
            set(&mut options, name, value).unwrap();
        }
        let list = list(&options);
        for shown in
            ["temp               0.25", "top-k              7", "seed               9", "max-tokens         12"]
        {
            assert!(list.contains(shown), "{list}");
        }
    }

    #[test]
    fn wrong_values_change_nothing() {
        let mut options = GenerateOptions::default();
        for (name, value) in [("temp", "hot"), ("temp", "-1"), ("top-p", "2"), ("top-k", "-1"), ("colour", "red")] {
            assert!(set(&mut options, name, value).is_err(), "{name} {value}");
        }
        assert_eq!(list(&options), list(&GenerateOptions::default()));
    }
}
