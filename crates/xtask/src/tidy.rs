//! stub
use crate::{
    checkout::Checkout,
    report::{Failure, Report},
};
pub(crate) fn run(_: &Checkout) -> Result<Report, Failure> {
    Ok(Report::new())
}
