//! What keys and the mouse do: one table of keys, from which the handler, the footer and the help come.
//!
//! Pure: an input and the state of the screen in, a new state and perhaps a request out. Requests
//! are carried out by the loop.

use super::actions as act;
use super::targets::{Target, Targets};
use super::ui::{Known, Overlay, Request, Tab, Ui};
use Action::{Ask, Change};
use ratatui::crossterm::event::{
    KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind,
};
use ratatui::layout::Position;

/// What a key does.
enum Action {
    /// Changes the screen.
    Change(fn(&mut Ui, &Known)),
    /// May want something of the loop as well.
    Ask(fn(&mut Ui, &Known) -> Option<Request>),
}

/// One key.
pub struct KeyBinding {
    /// What is pressed.
    pub key: KeyCode,
    /// How the key is written.
    pub name: &'static str,
    /// One word for the footer; empty: not in the footer.
    pub word: &'static str,
    /// One sentence for the help.
    pub help: &'static str,
    /// The views in which it means this.
    pub tabs: &'static [Tab],
    action: Action,
}

const ANYWHERE: &[Tab] = &Tab::ALL;
const CURVES: &[Tab] = &[Tab::Overview, Tab::Charts, Tab::Compare];
const CHARTS: &[Tab] = &[Tab::Charts];
const RANKS: &[Tab] = &[Tab::Ranks];
const CASES: &[Tab] = &[Tab::Cases];
const MESSAGES: &[Tab] = &[Tab::Messages];
const COMPARE: &[Tab] = &[Tab::Compare];
const PATTERNS: &[Tab] = &[Tab::Messages, Tab::Compare];

const fn bind(
    (key, name): (KeyCode, &'static str),
    word: &'static str,
    help: &'static str,
    tabs: &'static [Tab],
    action: Action,
) -> KeyBinding {
    KeyBinding { key, name, word, help, tabs, action }
}

const fn letter(name: &'static str) -> (KeyCode, &'static str) {
    (KeyCode::Char(name.as_bytes()[0] as char), name)
}

/// All keys, in the order of the footer and the help.
pub const KEYS: &[KeyBinding] = &[
    bind(letter("q"), "quit", "leave; the run goes on", ANYWHERE, Ask(|_, _| Some(Request::Quit))),
    bind(letter("?"), "help", "explain the keys", ANYWHERE, Change(act::help)),
    bind((KeyCode::Tab, "tab"), "next view", "show the next view", ANYWHERE, Change(act::next_tab)),
    bind(letter("1"), "", "overview", ANYWHERE, Change(|ui, _| act::tab(ui, Tab::Overview))),
    bind(letter("2"), "", "charts", ANYWHERE, Change(|ui, _| act::tab(ui, Tab::Charts))),
    bind(letter("3"), "", "ranks", ANYWHERE, Change(|ui, _| act::tab(ui, Tab::Ranks))),
    bind(letter("4"), "", "cases", ANYWHERE, Change(|ui, _| act::tab(ui, Tab::Cases))),
    bind(letter("5"), "", "messages", ANYWHERE, Change(|ui, _| act::tab(ui, Tab::Messages))),
    bind(letter("6"), "", "compare runs", ANYWHERE, Change(|ui, _| act::tab(ui, Tab::Compare))),
    bind(letter("n"), "next run", "show the next run", ANYWHERE, Ask(act::next_run)),
    bind(
        (KeyCode::Enter, "enter"),
        "focus",
        "one chart or all of them",
        CHARTS,
        Change(act::focus),
    ),
    bind((KeyCode::Down, "↓"), "next", "select the next chart", CHARTS, Change(act::next_chart)),
    bind((KeyCode::Up, "↑"), "", "select the previous chart", CHARTS, Change(act::previous_chart)),
    bind(letter("c"), "", "more columns of charts", CHARTS, Change(act::columns)),
    bind(letter("l"), "log", "values on a logarithmic scale", CURVES, Change(act::log_scale)),
    bind(letter("m"), "smooth", "smooth the curves more", CURVES, Change(act::smooth)),
    bind(letter("+"), "zoom", "show fewer steps", CURVES, Change(act::zoom_in)),
    bind(letter("-"), "", "show more steps", CURVES, Change(act::zoom_out)),
    bind(letter("<"), "", "show earlier steps", CURVES, Change(act::pan_left)),
    bind(letter(">"), "", "show later steps", CURVES, Change(act::pan_right)),
    bind(letter("f"), "follow", "show the newest steps", CURVES, Change(act::follow)),
    bind(letter("0"), "", "show all steps", CURVES, Change(act::whole)),
    bind(
        (KeyCode::Left, "←"),
        "",
        "read values off, to the left",
        CURVES,
        Change(act::cursor_left),
    ),
    bind(
        (KeyCode::Right, "→"),
        "",
        "read values off, to the right",
        CURVES,
        Change(act::cursor_right),
    ),
    bind((KeyCode::Esc, "esc"), "", "stop reading values off", CURVES, Change(act::cursor_off)),
    bind((KeyCode::Right, "→"), "sort", "sort by the next column", RANKS, Change(act::sort_next)),
    bind(
        (KeyCode::Left, "←"),
        "",
        "sort by the previous column",
        RANKS,
        Change(act::sort_previous),
    ),
    bind(letter("o"), "order", "turn the order around", RANKS, Change(act::sort_order)),
    bind(letter("h"), "heat map", "table or heat map", RANKS, Change(act::heat_map)),
    bind((KeyCode::Down, "↓"), "", "scroll down", RANKS, Change(act::ranks_down)),
    bind((KeyCode::Up, "↑"), "", "scroll up", RANKS, Change(act::ranks_up)),
    bind((KeyCode::Right, "→"), "slice", "the next slice", CASES, Change(act::slice_next)),
    bind((KeyCode::Left, "←"), "", "the previous slice", CASES, Change(act::slice_previous)),
    bind(
        (KeyCode::Enter, "enter"),
        "picture",
        "the next picture",
        CASES,
        Change(act::picture_next),
    ),
    bind((KeyCode::Down, "↓"), "", "scroll down", CASES, Change(act::cases_down)),
    bind((KeyCode::Up, "↑"), "", "scroll up", CASES, Change(act::cases_up)),
    bind(letter("v"), "level", "only what matters more", MESSAGES, Change(act::level)),
    bind(
        letter("a"),
        "rank",
        "one rank after the other, or all",
        MESSAGES,
        Change(act::rank_filter),
    ),
    bind((KeyCode::Up, "↑"), "", "older messages", MESSAGES, Change(act::older)),
    bind((KeyCode::Down, "↓"), "", "newer messages", MESSAGES, Change(act::newer)),
    bind(letter("/"), "filter", "show what matches a pattern", PATTERNS, Change(act::type_pattern)),
    bind((KeyCode::Down, "↓"), "", "select the next run", COMPARE, Ask(act::next_run)),
    bind((KeyCode::Up, "↑"), "", "select the previous run", COMPARE, Ask(act::previous_run)),
    bind(letter("x"), "metric", "draw another curve of all runs", COMPARE, Change(act::metric)),
    bind(
        letter("r"),
        "replay",
        "travel to the past, and back",
        ANYWHERE,
        Ask(|ui, known| Some(act::replay(ui, known))),
    ),
    bind(
        (KeyCode::Char(' '), "space"),
        "",
        "let a replay run or stand",
        ANYWHERE,
        Ask(|ui, known| Some(act::play(ui, known))),
    ),
    bind(
        letter("("),
        "",
        "go back in a replay",
        ANYWHERE,
        Ask(|ui, known| act::scrub(ui, known, -1)),
    ),
    bind(letter(")"), "", "go on in a replay", ANYWHERE, Ask(|ui, known| act::scrub(ui, known, 1))),
    bind(letter("w"), "save", "ask the run to save now", ANYWHERE, Change(act::ask_checkpoint)),
    bind(letter("s"), "stop", "ask the run to save and end", ANYWHERE, Change(act::ask_stop)),
];

/// Does what a key means at this moment.
pub fn update(ui: &mut Ui, key: KeyEvent, known: &Known) -> Option<Request> {
    let is_interrupt =
        key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c');
    if is_interrupt {
        return Some(Request::Quit);
    }
    ui.notice = None;
    if ui.is_typing {
        act::type_key(ui, key.code);
        return None;
    }
    let is_yes = key.code == KeyCode::Char('y');
    match std::mem::take(&mut ui.overlay) {
        // Any key but yes takes the question back.
        Overlay::StopQuestion => is_yes.then_some(Request::WriteStop),
        Overlay::CheckpointQuestion => is_yes.then_some(Request::WriteCheckpoint),
        Overlay::Help if key.code != KeyCode::Char('q') => None,
        Overlay::Help | Overlay::None => {
            let code = if key.code == KeyCode::Char('=') { KeyCode::Char('+') } else { key.code };
            let binding = KEYS.iter().find(|b| b.key == code && b.tabs.contains(&ui.tab))?;
            match binding.action {
                Ask(action) => return action(ui, known),
                Change(action) => action(ui, known),
            }
            None
        }
    }
}

/// Does what the mouse means.
pub fn mouse(ui: &mut Ui, event: MouseEvent, targets: &Targets, known: &Known) -> Option<Request> {
    let place = Position::new(event.column, event.row);
    let &(area, target) = targets.iter().rev().find(|(area, _)| area.contains(place))?;
    let is_click = event.kind == MouseEventKind::Down(MouseButton::Left);
    match target {
        Target::Plot(chart, window) => {
            let share = f64::from(event.column - area.x) / f64::from(area.width.max(2) - 1);
            let step = window[0] + (share * (window[1] - window[0]) as f64).round() as u64;
            match event.kind {
                MouseEventKind::ScrollUp => act::zoom(ui, known, (0.5, Some(step))),
                MouseEventKind::ScrollDown => act::zoom(ui, known, (2.0, Some(step))),
                MouseEventKind::Moved | MouseEventKind::Drag(_) => ui.curves.cursor = Some(step),
                MouseEventKind::Down(MouseButton::Left) => ui.curves.selected = chart,
                MouseEventKind::Down(MouseButton::Right) => ui.curves.cursor = None,
                _ => {}
            }
        }
        Target::Tab(tab) if is_click => ui.tab = tab,
        Target::RankColumn(column) if is_click => {
            let again = ui.ranks.sort == column;
            ui.ranks.is_descending = again && !ui.ranks.is_descending;
            ui.ranks.sort = column;
        }
        Target::Run(run) if is_click => return act::select_run(ui, run),
        _ => {}
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::layout::Rect;

    const KNOWN: Known = Known {
        extent: [0, 1000],
        times_ms: [0, 100_000],
        charts: 4,
        ranks: 2,
        rank_columns: 3,
        rows: 0,
        pictures: 2,
        slices: 8,
    };

    fn ui(runs: usize) -> Ui {
        Ui { runs, ..Ui::default() }
    }

    fn press(ui: &mut Ui, keys: &str) -> Vec<Request> {
        let key = |key| KeyEvent::from(KeyCode::Char(key));
        keys.chars().filter_map(|letter| update(ui, key(letter), &KNOWN)).collect()
    }

    #[test]
    fn requests_take_two_keys() {
        let mut ui = ui(1);
        assert_eq!(press(&mut ui, "snwn"), []);
        assert_eq!(press(&mut ui, "y"), []);
        assert_eq!(press(&mut ui, "sywy"), [Request::WriteStop, Request::WriteCheckpoint]);
        assert_eq!(ui.overlay, Overlay::None);
    }

    #[test]
    fn control_c_leaves_even_in_front_of_a_question() {
        let mut ui = Ui { overlay: Overlay::StopQuestion, ..ui(1) };
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(update(&mut ui, interrupt, &KNOWN), Some(Request::Quit));
    }

    #[test]
    fn views_and_runs_go_round() {
        let mut ui = ui(2);
        for expected in [1, 0, 1] {
            press(&mut ui, "n");
            assert_eq!(ui.selected, expected);
        }
        for tab in Tab::ALL {
            assert_eq!(ui.tab, tab);
            update(&mut ui, KeyEvent::from(KeyCode::Tab), &KNOWN);
        }
        assert_eq!(ui.tab, Tab::Overview);
    }

    #[test]
    fn keys_mean_one_thing_in_each_view() {
        for (index, binding) in KEYS.iter().enumerate() {
            for other in &KEYS[index + 1..] {
                let both = binding.tabs.iter().any(|tab| other.tabs.contains(tab));
                assert!(other.key != binding.key || !both, "{} means two things", binding.name);
            }
        }
    }

    #[test]
    fn zooming_keeps_the_end_and_panning_stays_within() {
        let mut ui = ui(1);
        press(&mut ui, "+");
        assert_eq!(ui.curves.window(KNOWN.extent), [500, 1000]);
        press(&mut ui, "+<<");
        assert_eq!(ui.curves.window(KNOWN.extent), [500, 750]);
        press(&mut ui, "<<<<<<<<<<<<<<<<<<");
        assert_eq!(ui.curves.window(KNOWN.extent), [0, 250]);
        press(&mut ui, "f");
        assert_eq!(ui.curves.window([0, 2000]), [1750, 2000]);
        press(&mut ui, "-----");
        assert_eq!(ui.curves.window(KNOWN.extent), [0, 1000]);
    }

    #[test]
    fn typing_changes_the_pattern_until_enter() {
        let mut ui = Ui { tab: Tab::Messages, ..ui(1) };
        assert_eq!(press(&mut ui, "/qa?"), []);
        assert_eq!((ui.messages.pattern.as_str(), ui.is_typing), ("qa?", true));
        update(&mut ui, KeyEvent::from(KeyCode::Backspace), &KNOWN);
        update(&mut ui, KeyEvent::from(KeyCode::Enter), &KNOWN);
        assert_eq!((ui.messages.pattern.as_str(), ui.is_typing), ("qa", false));
        assert_eq!(press(&mut ui, "q"), [Request::Quit]);
    }

    #[test]
    fn a_replay_starts_at_the_end_goes_back_and_ends() {
        let mut ui = ui(1);
        let travel = |run, until_ms| Request::Travel { run, until_ms };
        assert_eq!(press(&mut ui, "r"), [travel(0, Some(100_000))]);
        assert_eq!(press(&mut ui, "("), [travel(0, Some(98_000))]);
        assert_eq!(press(&mut ui, "r"), [travel(0, None)]);
        assert_eq!(ui.replay, None);
    }

    #[test]
    fn a_run_that_is_left_during_its_replay_returns_to_the_present() {
        let back = Request::Travel { run: 0, until_ms: None };
        let mut by_key = Ui { tab: Tab::Compare, ..ui(2) };
        press(&mut by_key, "r");
        by_key.cases.top = 3;
        let mut by_mouse = by_key.clone();
        assert_eq!(press(&mut by_key, "n"), [back]);
        let click = MouseEventKind::Down(MouseButton::Left);
        let event = MouseEvent { kind: click, column: 3, row: 7, modifiers: KeyModifiers::NONE };
        let targets = vec![(Rect::new(0, 7, 10, 1), Target::Run(1))];
        assert_eq!(mouse(&mut by_mouse, event, &targets, &KNOWN), Some(back));
        assert_eq!(by_mouse, by_key);
        assert_eq!((by_mouse.selected, by_mouse.replay, by_mouse.cases.top), (1, None, 0));
    }

    #[test]
    fn the_mouse_reads_off_zooms_and_chooses_views() {
        let mut ui = ui(1);
        let targets = vec![
            (Rect::new(0, 0, 10, 1), Target::Tab(Tab::Ranks)),
            (Rect::new(10, 5, 101, 20), Target::Plot(1, [0, 1000])),
        ];
        let mut at = |kind, column, row| {
            let event = MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE };
            mouse(&mut ui, event, &targets, &KNOWN);
            ui.clone()
        };
        assert_eq!(at(MouseEventKind::Moved, 60, 8).curves.cursor, Some(500));
        let zoomed = at(MouseEventKind::ScrollUp, 60, 8).curves;
        assert_eq!(zoomed.window(KNOWN.extent), [250, 750]);
        assert_eq!(at(MouseEventKind::Down(MouseButton::Left), 3, 0).tab, Tab::Ranks);
    }
}
