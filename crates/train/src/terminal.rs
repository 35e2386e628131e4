/// Lets Ctrl-C be a signal while the dashboard has the terminal: it turns that off with the rest of the terminal's own keys, and
/// knows none for it. What it found is what it puts back at its end.
#[cfg(all(unix, feature = "tui"))]
pub(crate) fn let_control_c_through() {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

    let terminal = std::io::stdin();
    if let Ok(mut modes) = tcgetattr(&terminal)
        && !modes.local_modes.contains(LocalModes::ISIG)
    {
        modes.local_modes.insert(LocalModes::ISIG);
        // Without it the dashboard's own key still ends the run.
        let _ = tcsetattr(&terminal, OptionalActions::Now, &modes);
    }
}

/// Where there is no such thing.
#[cfg(not(all(unix, feature = "tui")))]
pub(crate) fn let_control_c_through() {}
