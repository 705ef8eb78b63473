//! Whether steps are replayed, as people write it: `true`, `false` or `auto`.

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// Whether steps are recorded once and replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GraphChoice {
    /// On GPUs, as far as the method can; a run says once why it cannot.
    Auto,
    /// On any device; a run warns where it cannot.
    Always,
    /// Nowhere.
    Never,
}

impl Serialize for GraphChoice {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => to.serialize_str("auto"),
            Self::Always => to.serialize_bool(true),
            Self::Never => to.serialize_bool(false),
        }
    }
}

impl<'de> Deserialize<'de> for GraphChoice {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Choice;
        impl Visitor<'_> for Choice {
            type Value = GraphChoice;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`true`, `false` or `\"auto\"`")
            }
            fn visit_bool<E: Error>(self, is_wanted: bool) -> Result<GraphChoice, E> {
                Ok(if is_wanted { GraphChoice::Always } else { GraphChoice::Never })
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<GraphChoice, E> {
                let refuse = || E::invalid_value(Unexpected::Str(text), &self);
                (text == "auto").then_some(GraphChoice::Auto).ok_or_else(refuse)
            }
        }
        from.deserialize_any(Choice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;
    use crate::config::plan::RunPlan;

    const LEAST: &str =
        "[data]\npath = \"a.h5\"\n[method]\nname = \"partial-ce\"\n[train]\ntotal_steps = 5\n";

    #[test]
    fn what_is_written_is_kept_and_what_is_absent_is_left_to_the_run() {
        for (line, choice, written) in [
            ("", GraphChoice::Auto, "graph = \"auto\""),
            ("graph = \"auto\"", GraphChoice::Auto, "graph = \"auto\""),
            ("graph = true", GraphChoice::Always, "graph = true"),
            ("graph = false", GraphChoice::Never, "graph = false"),
        ] {
            let config = parse(&format!("{LEAST}{line}"), "a.toml", &[]).unwrap();
            let plan = RunPlan::resolve(config, 1).unwrap();
            assert_eq!(plan.train.graph, choice, "{line}");
            let text = plan.to_toml().unwrap();
            assert!(text.lines().any(|line| line == written), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_and_an_override_replaces_it() {
        let refused = parse(&format!("{LEAST}graph = \"yes\""), "a.toml", &[]).unwrap_err();
        let text = refused.to_string();
        assert!(text.contains("expected `true`, `false` or `\"auto\"`"), "{text}");
        let overridden = |word: &str| {
            let overrides = [format!("train.graph={word}")];
            parse(&format!("{LEAST}graph = true"), "a.toml", &overrides).unwrap().train.graph
        };
        assert_eq!(overridden("auto"), Some(GraphChoice::Auto));
        assert_eq!(overridden("false"), Some(GraphChoice::Never));
    }
}
