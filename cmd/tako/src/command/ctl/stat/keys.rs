//! The one key that `tako ctl top` knows: q ends it. The terminal is as it was when this is dropped.

use std::{io::Read as _, thread};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::sync::mpsc;

/// See the module.
pub(super) struct Keys {
    /// How the terminal was.
    was: Option<Termios>,
    quit: Option<mpsc::Receiver<()>>,
}

impl Keys {
    /// Listens to nothing.
    pub(super) fn none() -> Self {
        Self { was: None, quit: None }
    }

    /// Listens to the terminal that is standard input; to nothing where it is none.
    pub(super) fn listen() -> Self {
        let Ok(was) = tcgetattr(std::io::stdin()) else { return Self::none() };
        let mut now = was.clone();
        // Keys come at once and are not shown; Ctrl-C stays what it is.
        now.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        if tcsetattr(std::io::stdin(), OptionalActions::Now, &now).is_err() {
            return Self::none();
        }
        let (tell, quit) = mpsc::channel(1);
        // Ends with the process: nothing can take a read of a terminal back.
        thread::spawn(move || {
            let mut key = [0];
            while std::io::stdin().read_exact(&mut key).is_ok() && key != *b"q" {}
            let _ = tell.blocking_send(());
        });
        Self { was: Some(was), quit: Some(quit) }
    }

    /// Waits for q, or for Ctrl-C.
    pub(super) async fn quit(&mut self) {
        let key = async {
            match &mut self.quit {
                Some(quit) => drop(quit.recv().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = key => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        if let Some(was) = &self.was {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, was);
        }
    }
}
