//! Reports changes to a program's Python files, and to all files of further directories.
//!
//! Each directory is watched by itself, not a whole tree at once. So directories without any of the program's code,
//! some of which contain thousands of files, cost nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, io};

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

/// An editor or a checkout writes many files. Changes with no longer pause between them are reported together.
const PAUSE: Duration = Duration::from_millis(100);
/// However many changes there are, the first of them is reported after this time.
const MAX_INTERVAL: Duration = Duration::from_secs(1);

/// Watches the Python files below a directory, and all files below some others, except those in hidden directories,
/// virtual environments, caches and directories called node_modules, and except hidden files and editors' copies.
pub struct Watcher {
    /// Locked by the thread that waits.
    watch: Mutex<Watch>,
    news: Sender<News>,
}

enum News {
    Event(Event),
    Close,
}

struct Watch {
    /// Below these, all kinds of files count.
    for_all: Vec<PathBuf>,
    system: RecommendedWatcher,
    news: Receiver<News>,
}

impl Watcher {
    /// Begins to watch the Python files below `root`, and all files below `others`.
    ///
    /// # Errors
    /// If one of the paths is not a readable directory, or the system's limits do not allow so many watches.
    pub fn new(root: &Path, others: &[PathBuf]) -> io::Result<Self> {
        let (sender, news) = mpsc::channel();
        let events = sender.clone();
        let on_event = move |event: notify::Result<Event>| {
            if let Ok(event) = event {
                // There may no longer be a waiting thread.
                let _ = events.send(News::Event(event));
            }
        };
        let for_all = others.iter().map(|other| other.canonicalize()).collect::<io::Result<Vec<_>>>()?;
        let system = notify::recommended_watcher(on_event).map_err(to_io)?;
        let mut watch = Watch { for_all: for_all.clone(), system, news };
        for root in for_all.into_iter().chain([root.canonicalize()?]) {
            watch.add_tree(&root, &mut BTreeSet::new())?;
        }
        Ok(Self { watch: Mutex::new(watch), news: sender })
    }

    /// Waits for changes. Returns the files, sorted; empty if the time has passed, or the watcher was closed.
    pub fn next(&self, timeout: Duration) -> Vec<PathBuf> {
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = BTreeSet::new();
        let mut last = Instant::now() + timeout;
        let mut wait = timeout;
        while let Ok(News::Event(event)) = watch.news.recv_timeout(wait) {
            let is_first = changed.is_empty();
            watch.collect(&event, &mut changed);
            let now = Instant::now();
            if is_first && !changed.is_empty() {
                last = now + MAX_INTERVAL;
            }
            wait = last.saturating_duration_since(now);
            if !changed.is_empty() {
                wait = wait.min(PAUSE);
            }
        }
        changed.into_iter().collect()
    }

    /// Wakes the waiting thread.
    pub fn close(&self) {
        // A receiver exists as long as the watcher does.
        let _ = self.news.send(News::Close);
    }
}

impl Watch {
    /// Adds the files that an event concerns.
    fn collect(&mut self, event: &Event, changed: &mut BTreeSet<PathBuf>) {
        if matches!(event.kind, EventKind::Access(_)) {
            return;
        }
        for path in &event.paths {
            if self.counts(path) {
                changed.insert(path.clone());
            } else if matches!(event.kind, EventKind::Create(_) | EventKind::Modify(_)) && is_searched(path) {
                // A new directory may have received files before it was watched. If it cannot be watched (it may be
                // gone again), it is skipped.
                let _ = self.add_tree(path, changed);
            }
        }
    }

    /// Whether changes to this path are reported. A file that is gone can no longer be told from a directory.
    fn counts(&self, path: &Path) -> bool {
        let is_any_file = || {
            let is_inside = self.for_all.iter().any(|root| path != root && path.starts_with(root));
            is_inside && !is_hidden(path) && !is_copy(path) && !path.is_dir()
        };
        is_python(path) || is_any_file()
    }

    /// Watches a directory and everything in it, and adds the files found there.
    fn add_tree(&mut self, directory: &Path, found: &mut BTreeSet<PathBuf>) -> io::Result<()> {
        self.system.watch(directory, RecursiveMode::NonRecursive).map_err(to_io)?;
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if self.counts(&path) {
                found.insert(path);
            } else if is_searched(&path) {
                match self.add_tree(&path, found) {
                    // No code is imported from there either.
                    Err(error) if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound) => {
                    }
                    done => done?,
                }
            }
        }
        Ok(())
    }
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// Whether it is the copy that an editor keeps of a file's previous content.
fn is_copy(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(b"~")
}

fn is_python(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "py") && !is_hidden(path)
}

/// Whether it is a directory that may hold code of the program. A link to a directory is not followed: it may lead in a
/// circle.
fn is_searched(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
        && !is_hidden(path)
        && !path.ends_with("__pycache__")
        && !path.ends_with("node_modules")
        && !path.join("pyvenv.cfg").exists()
}

fn to_io(error: notify::Error) -> io::Error {
    match error.kind {
        notify::ErrorKind::Io(error) => error,
        notify::ErrorKind::MaxFilesWatch => io::Error::other("the system's limit of watched directories is reached"),
        kind => io::Error::other(format!("{kind:?}")),
    }
}

#[cfg(test)]
mod tests {
    use std::process;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    /// A directory that exists for the duration of a test.
    struct Tree(PathBuf);

    impl Tree {
        fn new() -> Self {
            static COUNT: AtomicUsize = AtomicUsize::new(0);
            let name = format!("hubbub-watch-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
            let path = std::env::temp_dir().join(name);
            fs::create_dir(&path).expect("a directory");
            Self(path.canonicalize().expect("a path"))
        }

        fn write(&self, name: &str) -> PathBuf {
            let path = self.0.join(name);
            fs::create_dir_all(path.parent().expect("it has one")).expect("a directory");
            fs::write(&path, "x = 1\n").expect("written");
            path
        }

        fn watch(&self) -> Watcher {
            Watcher::new(&self.0, &[]).expect("watched")
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn python_files_that_change_are_told_together() {
        let tree = Tree::new();
        let (first, second) = (tree.write("app.py"), tree.write("package/deep/part.py"));
        let watcher = tree.watch();
        tree.write("package/deep/part.py");
        tree.write("app.py");
        assert_eq!(watcher.next(LONG), [first, second]);
    }

    #[test]
    fn what_is_no_code_of_the_program_is_not_told() {
        let tree = Tree::new();
        let places = ["__pycache__", ".git", "node_modules", "venv"];
        tree.write("venv/pyvenv.cfg");
        for place in places {
            tree.write(&format!("{place}/deep/a.py"));
        }
        let watcher = tree.watch();
        for place in places {
            tree.write(&format!("{place}/deep/a.py"));
            tree.write(&format!("{place}/b.py"));
        }
        tree.write("notes.txt");
        tree.write(".hidden.py");
        let app = tree.write("app.py");
        assert_eq!(watcher.next(LONG), [app]);
    }

    #[test]
    fn all_files_of_further_directories_are_told() {
        let (code, pages) = (Tree::new(), Tree::new());
        let page = pages.write("deep/page.html");
        let watcher = Watcher::new(&code.0, std::slice::from_ref(&pages.0)).expect("watched");
        for quiet in ["deep/.page.html.swp", "deep/page.html~", ".git/index", "node_modules/a.js"] {
            pages.write(quiet);
        }
        code.write("notes.txt");
        pages.write("deep/page.html");
        assert_eq!(watcher.next(LONG), std::slice::from_ref(&page));
        let style = pages.write("new/style.css");
        assert_eq!(watcher.next(LONG), [style]);
        fs::remove_file(&page).expect("removed");
        assert_eq!(watcher.next(LONG), [page]);
        let app = code.write("app.py");
        assert_eq!(watcher.next(LONG), [app]);
    }

    #[test]
    fn new_directories_are_watched_too() {
        let tree = Tree::new();
        let watcher = tree.watch();
        let first = tree.write("new/deep/first.py");
        assert_eq!(watcher.next(LONG), [first]);
        let second = tree.write("new/deep/second.py");
        assert_eq!(watcher.next(LONG), [second]);
    }

    #[test]
    fn files_that_are_replaced_or_removed_have_changed() {
        let tree = Tree::new();
        let (app, draft) = (tree.write("app.py"), tree.write("draft.txt"));
        let watcher = tree.watch();
        fs::rename(draft, &app).expect("renamed");
        assert_eq!(watcher.next(LONG), std::slice::from_ref(&app));
        fs::remove_file(&app).expect("removed");
        assert_eq!(watcher.next(LONG), [app]);
    }

    #[test]
    fn waiting_ends_in_time_and_when_it_is_closed() {
        let tree = Tree::new();
        let watcher = tree.watch();
        assert!(watcher.next(Duration::from_millis(1)).is_empty());
        watcher.close();
        assert!(watcher.next(LONG).is_empty());
    }

    #[test]
    fn a_directory_must_be_there() {
        let (tree, missing) = (Tree::new(), PathBuf::from("no/such/directory"));
        for (root, others) in [(&missing, vec![]), (&tree.0, vec![missing.clone()])] {
            let refusal = Watcher::new(root, &others).err().expect("refused");
            assert_eq!(refusal.kind(), io::ErrorKind::NotFound);
        }
    }
}
