//! A process and its children, which end together.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::time::timeout;

/// How long a process may take to end after SIGTERM: the maximum on Lambda.
const GRACE: Duration = Duration::from_millis(500);

/// A running process in its own process group, which is killed on drop.
///
/// The group shields the function from Ctrl-C in the terminal, so that it can still handle
/// `$disconnect`. It also includes child processes: `sh`, `npm`, and `cargo run` run the function
/// as a child.
pub(super) struct Group {
    child: Child,
    /// `Some` until the process is reaped; afterwards, the id may belong to another process.
    id: Option<u32>,
}

impl Group {
    pub(super) fn spawn(mut command: Command) -> io::Result<Self> {
        #[cfg(unix)]
        command.process_group(0);
        let child = command.spawn()?;
        Ok(Self { id: child.id(), child })
    }

    pub(super) fn outputs(&mut self) -> (Option<ChildStdout>, Option<ChildStderr>) {
        (self.child.stdout.take(), self.child.stderr.take())
    }

    /// Waits until the process ends, and kills its children.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await;
        self.kill();
        status
    }

    /// Asks the group to end, and kills it after a grace period.
    pub(super) async fn end(&mut self) {
        self.terminate();
        let _ = timeout(GRACE, self.child.wait()).await;
        self.kill();
        let _ = timeout(GRACE, self.child.wait()).await;
    }

    #[cfg(unix)]
    fn terminate(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    #[cfg(not(unix))]
    fn terminate(&mut self) {
        let _ = self.child.start_kill();
    }

    fn kill(&mut self) {
        #[cfg(unix)]
        self.signal(rustix::process::Signal::KILL);
        let _ = self.child.start_kill();
        self.id = None;
    }

    #[cfg(unix)]
    fn signal(&self, signal: rustix::process::Signal) {
        let id = self.id.and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        if let Some(id) = id {
            let _ = rustix::process::kill_process_group(id, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}
