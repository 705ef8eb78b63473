//! How much memory predicting takes, for people who ask before they predict; nothing is predicted or written.

use super::images;
use super::members::Member;
use super::records::MadeWith;
use super::segment::Segmenter;
use super::share::Job;
use super::{fit, job};
use crate::comm::agree;
use crate::commands::narrate::together;
use crate::commands::run::connect;
use crate::config::DeviceChoice;
use crate::error::Result;
use std::path::Path;

/// What the largest of the images takes with the newest checkpoint of a run, in words. Images that cannot be read are
/// passed over.
pub(super) fn of(run: &Path, images: &Path) -> Result<String> {
    let (host, variables) = connect()?;
    together(&*host, || {
        let member = agree(&*host, Member::read(run, "last", None))?;
        let found = agree(&*host, images::find(images, member.files_for_each()))?;
        let jobs: Vec<Job> = found.into_iter().map(job).collect();
        let place = member.place(DeviceChoice::Auto, &host, &variables)?;
        let ranks = place.join(&host)?;
        let methods = [member.restore(place, &ranks)?];
        let made_with = MadeWith::labels_alone(vec![member.identity()?]);
        let mut segmenter = Segmenter::new(&member, &methods, place.device, &made_with);
        fit(&mut segmenter, &jobs, None)
    })
}
