//! What the run has cost each site's records, as the sites say it.

use super::markup::Escaped;
use super::quantity::{count, counted};
use crate::report::{RunPrivacy, SiteReport};

/// Rows of a long table; the rest is in `report.json`.
const SITES_SHOWN: usize = 100;

pub(super) fn write(out: &mut String, privacy: Option<&RunPrivacy>, sites: &[SiteReport]) {
    let Some(privacy) = privacy else {
        return;
    };
    let evaluate = privacy.evaluate.map_or_else(
        || "No site measured the model.".to_owned(),
        |epsilon| format!("Measuring it may cost {epsilon} more."),
    );
    put!(
        out,
        "<p>Protected is the presence of one {} at a site: with one more or one fewer, the odds of anything that the site sent \
         change by a factor of e<sup>epsilon</sup> at most, but for the probability delta. The model may cost epsilon {} at \
         delta {}. {} All figures that the sites sent carry noise; what a simulation measured for itself does not.</p>\n",
        Escaped(&privacy.unit),
        privacy.epsilon,
        privacy.delta,
        Escaped(&evaluate)
    );
    let paid: Vec<_> = sites.iter().filter_map(|site| Some((site, site.privacy.as_ref()?))).collect();
    if paid.is_empty() {
        put!(out, "<p class=\"quiet\">No site has sent a statement of what it spent.</p>\n");
        return;
    }
    put!(
        out,
        "<div class=\"scroll\"><table class=\"privacy\">\n<caption>Spent, by each site's own ledger and under its signature. \
         “All runs” is everything ever done with the site's data set, which its cap bounds.</caption>\n<thead><tr><th \
         scope=\"col\">Site</th>"
    );
    for head in ["Epsilon (PLD)", "RDP", "One exchanged", "Delta", "All runs", "Cap", "Ledger entries"] {
        put!(out, "<th scope=\"col\" class=\"num\">{head}</th>");
    }
    put!(out, "</tr></thead>\n<tbody>\n");
    for (site, spent) in paid.iter().take(SITES_SHOWN) {
        put!(
            out,
            "<tr><th scope=\"row\"><bdi>{}</bdi></th><td class=\"num\">{:.4}</td><td class=\"num\">{:.4}</td><td \
             class=\"num\">{:.4}</td><td class=\"num\">{:e}</td><td class=\"num\">{:.4}</td><td class=\"num\">{:.4}</td><td \
             class=\"num\">{}</td></tr>\n",
            Escaped(&site.name),
            spent.epsilon,
            spent.epsilon_rdp,
            spent.epsilon_replace_one,
            spent.delta,
            spent.epsilon_total,
            spent.cap,
            count(spent.ledger_entries)
        );
    }
    put!(out, "</tbody>\n</table></div>\n");
    if paid.len() > SITES_SHOWN {
        let rest = counted(paid.len() - SITES_SHOWN, "more site is", "more sites are");
        put!(out, "<p class=\"quiet\">{rest} in <code>report.json</code>.</p>\n");
    }
}
