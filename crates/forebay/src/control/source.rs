//! Where a configuration comes from, and how it becomes one that can be put into service.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use forebay_config::{Inputs, LoadOptions, Loaded, Report, load, load_text};

use super::build::{Built, build};
use super::watch::Made;
use crate::steps::registry;

/// A configuration's origin.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file, read anew at each reload.
    File(PathBuf),
    /// A text that a command has made up; paths in it are relative to the working directory.
    Text(String),
}

impl Source {
    /// How messages call it.
    pub fn name(&self) -> String {
        match self {
            Source::File(path) => path.display().to_string(),
            Source::Text(_) => "the built-in configuration".to_owned(),
        }
    }

    /// Runs and checks it.
    pub fn load(&self) -> Result<Loaded, Report> {
        let options = LoadOptions::default();
        match self {
            Source::File(path) => load(path, registry(), &options),
            Source::Text(text) => {
                let path = Path::new("built-in.lua");
                load_text(path, text.clone().into_bytes(), registry(), &options)
            }
        }
    }

    /// Runs, checks and builds it; `previous` is what is in service. Blocks.
    pub fn build(&self, previous: Option<&Built>) -> Result<(Built, Report), Report> {
        let begun = SystemTime::now();
        let mut loaded = self.load()?;
        match build(&loaded.declarations, &mut loaded.report, previous) {
            Some(mut built) => {
                let is_watched = |built: &Built| built.server.watch;
                if is_watched(&built) || previous.is_some_and(is_watched) {
                    built.made = Made::of(Inputs::of(&loaded), begun);
                }
                Ok((built, loaded.report))
            }
            None => Err(loaded.report),
        }
    }
}
