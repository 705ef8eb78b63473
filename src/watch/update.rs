//! What keys do: one table, from which the handler, the footer and the help come.
//!
//! Pure: a key and the state of the screen in, a new state and perhaps a request out. Requests are
//! carried out by the loop.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// The state of the screen that is not about a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ui {
    /// The run that is shown.
    pub selected: usize,
    /// How many runs there are, at least 1.
    pub runs: usize,
    /// Whether losses are drawn on a logarithmic scale.
    pub log_scale: bool,
    /// What lies on top of the panels.
    pub overlay: Overlay,
}

/// What lies on top of the panels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Overlay {
    /// Nothing.
    #[default]
    None,
    /// The list of keys.
    Help,
    /// The question whether the run is to end.
    StopQuestion,
}

/// What the loop has to do for the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Leave the dashboard; runs go on.
    Quit,
    /// Ask the selected run to save and end.
    WriteStop,
}

/// One key.
pub struct KeyBinding {
    /// What is pressed.
    pub key: KeyCode,
    /// How the key is written.
    pub name: &'static str,
    /// One word for the footer.
    pub word: &'static str,
    /// One sentence for the help.
    pub help: &'static str,
    action: fn(&mut Ui) -> Option<Request>,
}

/// All keys, in the order of the footer.
pub const KEYS: &[KeyBinding] = &[
    KeyBinding {
        key: KeyCode::Char('q'),
        name: "q",
        word: "quit",
        help: "leave; the run goes on",
        action: |_| Some(Request::Quit),
    },
    KeyBinding {
        key: KeyCode::Char('s'),
        name: "s",
        word: "stop",
        help: "ask the run to save and end",
        action: |ui| {
            ui.overlay = Overlay::StopQuestion;
            None
        },
    },
    KeyBinding {
        key: KeyCode::Char('l'),
        name: "l",
        word: "log",
        help: "losses on a logarithmic scale",
        action: |ui| {
            ui.log_scale = !ui.log_scale;
            None
        },
    },
    KeyBinding {
        key: KeyCode::Tab,
        name: "tab",
        word: "next run",
        help: "show the next run",
        action: |ui| {
            ui.selected = (ui.selected + 1) % ui.runs.max(1);
            None
        },
    },
    KeyBinding {
        key: KeyCode::Char('?'),
        name: "?",
        word: "help",
        help: "explain the keys",
        action: |ui| {
            ui.overlay = Overlay::Help;
            None
        },
    },
];

/// Does what a key means at this moment.
pub fn update(ui: &mut Ui, key: KeyEvent) -> Option<Request> {
    let is_interrupt =
        key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c');
    if is_interrupt {
        return Some(Request::Quit);
    }
    match std::mem::take(&mut ui.overlay) {
        // Any key but yes takes the question back.
        Overlay::StopQuestion => (key.code == KeyCode::Char('y')).then_some(Request::WriteStop),
        Overlay::Help if key.code != KeyCode::Char('q') => None,
        Overlay::Help | Overlay::None => {
            let binding = KEYS.iter().find(|binding| binding.key == key.code)?;
            (binding.action)(ui)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(ui: &mut Ui, keys: &str) -> Vec<Request> {
        keys.chars().filter_map(|key| update(ui, KeyEvent::from(KeyCode::Char(key)))).collect()
    }

    #[test]
    fn stopping_takes_two_keys() {
        let mut ui = Ui { runs: 1, ..Ui::default() };
        assert_eq!(press(&mut ui, "sn"), []);
        assert_eq!(press(&mut ui, "y"), []);
        assert_eq!(press(&mut ui, "sy"), [Request::WriteStop]);
        assert_eq!(ui.overlay, Overlay::None);
    }

    #[test]
    fn control_c_leaves_even_in_front_of_a_question() {
        let mut ui = Ui { overlay: Overlay::StopQuestion, runs: 1, ..Ui::default() };
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(update(&mut ui, interrupt), Some(Request::Quit));
    }

    #[test]
    fn tab_goes_round() {
        let mut ui = Ui { runs: 2, ..Ui::default() };
        for expected in [1, 0, 1] {
            update(&mut ui, KeyEvent::from(KeyCode::Tab));
            assert_eq!(ui.selected, expected);
        }
    }

    #[test]
    fn keys_are_bound_once() {
        for (index, binding) in KEYS.iter().enumerate() {
            assert!(KEYS[index + 1..].iter().all(|other| other.key != binding.key));
        }
    }
}
