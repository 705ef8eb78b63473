//! The pages of `docs/reference`, which are made from the code: whether they still say what it says.
//!
//! With `SCRIMP_BLESS=1` they are written instead. What stands on them is decided in `pages`.

mod pages;
mod source;

use std::path::{Path, PathBuf};

/// Refuses a page that differs from what the code says, or writes it if asked to.
fn check(name: &str, expected: &str) {
    let page = format!("docs/reference/{name}.md");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(&page);
    if std::env::var_os("SCRIMP_BLESS").is_some_and(|value| value == "1") {
        std::fs::write(&path, expected).unwrap();
        return;
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    if found == expected {
        return;
    }
    let equal = found.lines().zip(expected.lines()).take_while(|(a, b)| a == b).count();
    let line = |text: &str| text.lines().nth(equal).unwrap_or("(the end)").to_owned();
    panic!(
        "`{page}` is stale at line {}\n  it says:       {}\n  the code says: {}\n\n\
         hint: refresh it with `SCRIMP_BLESS=1 launch/test reference`",
        equal + 1,
        line(&found),
        line(expected)
    );
}

#[test]
fn reference_of_commands_is_fresh() {
    check("commands", &pages::commands());
}

#[test]
fn reference_of_configuration_is_fresh() {
    check("configuration", &pages::configuration());
}

#[test]
fn reference_of_methods_is_fresh() {
    check("methods", &pages::methods());
}

#[test]
fn reference_of_run_log_is_fresh() {
    check("run-log", &pages::run_log());
}

fn markdown_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            markdown_below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

#[test]
fn every_link_of_the_documentation_leads_to_a_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![root.join("README.md"), root.join("CONTRIBUTING.md")];
    markdown_below(&root.join("docs"), &mut files);
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.starts_with("http")) {
            let target = target.split('#').next().unwrap();
            let leads_to = file.parent().unwrap().join(target);
            assert!(leads_to.exists(), "`{}` links to `{target}`", file.display());
        }
    }
}
