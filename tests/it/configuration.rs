//! Whatever a configuration says, it is taken, or refused with its place and without controlling the
//! terminal.

use scrimp::config::plan::RunPlan;
use scrimp::config::{self, RunConfig};
use scrimp::error::{Exit, Result};
use scrimp::random::{Draws, Key};
use std::path::{Path, PathBuf};

/// The plan, and the parameters of the method where this build has methods.
fn resolve(config: &RunConfig) -> Result<()> {
    RunPlan::resolve(config.clone(), 2)?;
    #[cfg(feature = "torch")]
    (scrimp::methods::find(&config.method.name)?.check)(config)?;
    Ok(())
}

/// Refusals are those of a user's mistake, short, and of letters that can be shown.
fn check(text: &str, overrides: &[String]) -> bool {
    let taken = config::parse(text, "a.toml", overrides).and_then(|config| resolve(&config));
    let Err(failure) = &taken else { return true };
    assert_eq!(failure.exit(), Exit::Usage, "{failure}");
    let said = failure.to_string();
    assert!(said.len() < 20_000, "{} bytes: {text}", said.len());
    assert!(said.chars().all(|letter| letter == '\n' || !letter.is_control()), "{said:?}");
    false
}

fn configurations() -> Vec<String> {
    let folder = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join(name).read_dir().unwrap();
    let entries =
        folder("configs").chain(folder("configs/smoke")).chain(folder("tests/it/invalid"));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

/// What no value of any key can be, or only just.
const VALUES: [&str; 20] = [
    "nan",
    "-inf",
    "-1",
    "0",
    "9223372036854775807",
    "-9223372036854775808",
    "1e308",
    "1e-320",
    "\"\"",
    "\"\\u001b[2J\"",
    "\"\u{202e}\"",
    "[]",
    "{}",
    "[[{ a = 1 }]]",
    "true",
    "1979-05-27T07:32:00Z",
    "\"5124095576030431h\"",
    "\"1h1h\"",
    "\"/dev/zero\"",
    "{ sgd = { momentum = nan }, adam = {} }",
];

fn pick<'a>(draws: &mut Draws, of: &[&'a str]) -> &'a str {
    of[draws.below(of.len() as u64) as usize]
}

/// One small damage: another value of a key, lines that go, one that comes twice or elsewhere, another letter.
fn damage(text: &str, draws: &mut Draws) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let place = draws.below(lines.len().max(1) as u64) as usize;
    match draws.below(5) {
        0 | 1 => {
            let keys: Vec<usize> = (0..lines.len()).filter(|&l| lines[l].contains('=')).collect();
            if keys.is_empty() {
                return text.to_owned();
            }
            let line = &mut lines[keys[draws.below(keys.len() as u64) as usize]];
            let key = line.split('=').next().unwrap_or_default().to_owned();
            *line = format!("{key}= {}", pick(draws, &VALUES));
        }
        2 => lines.truncate(place),
        3 => {
            let line = lines.get(place).cloned().unwrap_or_default();
            lines.insert(draws.below(lines.len() as u64 + 1) as usize, line);
        }
        _ => {
            let mut letters: Vec<char> = text.chars().collect();
            let letter =
                pick(draws, &["\0", "\u{1b}", "[", "\"", ".", "{", "=", "\u{9b}", "'", "#"]);
            let place = draws.below(letters.len() as u64 + 1) as usize;
            letters.splice(place..place, letter.chars());
            return letters.into_iter().collect();
        }
    }
    lines.join("\n")
}

#[test]
fn no_damage_to_a_configuration_does_more_than_be_refused() {
    let texts = configurations();
    let (mut taken, count) = (0, 3000);
    for number in 0..count {
        let mut draws = Key::new(7).number(number).draws();
        let mut text = texts[draws.below(texts.len() as u64) as usize].clone();
        for _ in 0..=draws.below(3) {
            text = damage(&text, &mut draws);
        }
        taken += u64::from(check(&text, &[]));
    }
    assert!(taken > 0 && taken < count, "{taken} of {count} were taken");
}

#[test]
fn depth_and_length_are_refused_and_overflow_nothing() {
    let deep = |open: &str| format!("a = {}", open.repeat(100_000));
    let long = "k".repeat(1_000_000);
    for text in [
        deep("["),
        deep("{ a = "),
        format!("{}b = 1", "a.".repeat(100_000)),
        format!("[{}b]\nx = 1", "a.".repeat(100_000)),
        format!("{}b = 1", "a.".repeat(70)),
        format!("{long} = 1"),
        format!("[train]\ntotal_steps{long} = 1"),
        format!("a = \"{long}\""),
    ] {
        assert!(!check(&text, &[]));
    }
    let least = "[data]\npath = 'p'\n[method]\nname = 'm'\n[train]\ntotal_steps = 1\n";
    for override_ in [
        format!("a={}", "[".repeat(100_000)),
        format!("{}b=1", "a.".repeat(100_000)),
        format!("method.params.{}b=1", "a.".repeat(40)),
        format!("train.{long}=1"),
        format!("train.total_steps={long}"),
        "train.\u{1b}[2J=1".to_owned(),
        "\"\u{1b}\".x=\u{1b}".to_owned(),
    ] {
        assert!(!check(least, &[override_]));
    }
}

#[test]
fn only_a_file_of_ordinary_size_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let large = folder.path().join("large.toml");
    let file = std::fs::File::create(&large).unwrap();
    // A hole, which takes no room on the disk.
    file.set_len(1 << 30).unwrap();
    for (path, cause) in [
        (large.as_path(), "it has more than 4194304 bytes"),
        (Path::new("/dev/zero"), "it is a device, expected a file"),
        (folder.path(), "it is a folder, expected a file"),
    ] {
        let failure = config::read(path, &[]).unwrap_err();
        assert_eq!(failure.exit(), Exit::Usage);
        assert!(failure.to_string().contains(cause), "{failure}");
    }
}
