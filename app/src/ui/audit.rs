//! Administration: what the loss auditor says of every hop.

use std::time::Duration;

use domain::Channel;
use leptos::prelude::*;
use leptos::task::spawn_local;
use leptos_meta::Title;
use protocol::{Alert, AuditMember, AuditView, Difference, Hop, HopReport};

use super::admin::{AdminTabs, moment, refused};
use super::erased::effect;
use crate::api;
use crate::codec::with_page;

/// How often it is read again.
const REFRESH: Duration = Duration::from_secs(2);

/// `/admin/audit`
#[component]
pub(super) fn AuditPage() -> impl IntoView {
    let first = with_page(api::audit);
    let audit = move || {
        Suspend::new(async move {
            match first.await {
                Ok(audit) => view! { <Account first=audit/> }.into_any(),
                Err(error) => refused(&error),
            }
        })
    };
    view! {
        <Title text="Loss auditor - Warren"/>
        <main class="admin">
            <AdminTabs/>
            <h1>"Loss auditor"</h1>
            <p class="admin-hint">
                "Every event that passes by is compared with the journal, and what browsers \
                 received with what was sent to them. A repeat on the wire is dropped by the \
                 browser; everything else should be 0."
            </p>
            <Suspense fallback=|| view! { <p class="loading">"Reading\u{2026}"</p> }>{audit}</Suspense>
        </main>
    }
    .into_any()
}

#[component]
fn Account(first: AuditView) -> impl IntoView {
    let audit = RwSignal::new(first);
    let failed = RwSignal::new(None::<String>);
    effect(move || {
        let read = move || {
            spawn_local(async move {
                match api::audit().await {
                    Ok(new) => {
                        failed.set(None);
                        audit.set(new);
                    }
                    Err(error) => failed.set(Some(error.to_string())),
                }
            });
        };
        if let Ok(again) = set_interval_with_handle(read, REFRESH) {
            on_cleanup(move || again.clear());
        }
    });
    let total = move |label: &'static str, bad: bool, of: fn(&AuditView) -> u64| {
        let wrong = move || bad && audit.with(of) > 0;
        view! {
            <div data-testid=format!("audit-{}", label.to_lowercase().replace(' ', "-"))
                class:bad=wrong>
                <dt>{label}</dt>
                <dd>{move || audit.with(of).to_string()}</dd>
            </div>
        }
    };
    view! {
        {move || failed.get().map(|said| {
            view! { <p class="form-error" role="alert">{said}</p> }.into_any()
        })}
        <dl class="audit-totals">
            {total("Missing", true, |audit| audit.totals.missing)}
            {total("Altered", true, |audit| audit.totals.altered)}
            {total("Duplicated on the wire", false, |audit| audit.totals.repeated)}
            {total("Duplicated on the screen", true, |audit| audit.totals.shown_twice)}
            {total("Unverified", false, |audit| audit.totals.unverified)}
            {total("Alerts", true, |audit| audit.totals.alerts)}
        </dl>
        <h2>"Members"</h2>
        <div class="audit-scroll" tabindex="0">
            <table class="audit-table" data-testid="audit-members">
                <thead>
                    <tr>
                        <th>"Member"</th><th>"Hop"</th><th>"Channel"</th><th>"Head"</th>
                        <th>"Verified"</th><th>"Blocks"</th><th>"State"</th>
                    </tr>
                </thead>
                <tbody>{move || audit.with(|audit| {
                    audit.members.iter().flat_map(|one| rows(audit, one)).collect_view()
                })}</tbody>
            </table>
        </div>
        <h2>"Alerts"</h2>
        {move || audit.with(|audit| match audit.alerts.as_slice() {
            [] => view! { <p class="admin-hint" role="status">"None: all hops agree."</p> }.into_any(),
            alerts => view! {
                <ul class="letters">{alerts.iter().map(alert_row).collect_view()}</ul>
            }
            .into_any(),
        })}
    }
    .into_any()
}

fn rows(audit: &AuditView, one: &AuditMember) -> Vec<AnyView> {
    let mut rows = Vec::new();
    for (hop, channels) in &one.report.hops {
        for (channel, report) in channels {
            let wrong = audit.alerts.iter().any(|alert| {
                alert.member == one.member && alert.hop == *hop && alert.channel == Some(*channel)
            });
            let state = if wrong { "differs" } else { state(report) };
            rows.push(row(&one.member, *hop, *channel, report, state));
        }
    }
    rows
}

fn row(
    member: &str,
    hop: Hop,
    channel: Channel,
    report: &HopReport,
    state: &'static str,
) -> AnyView {
    view! {
        <tr class:bad=state == "differs">
            <td><code title=member.to_owned()>{short(member)}</code></td>
            <td>{hop_words(hop)}</td>
            <td>{channel.to_string()}</td>
            <td>{report.head}</td>
            <td>{report.verified}</td>
            <td>{report.blocks}</td>
            <td>{state}</td>
        </tr>
    }
    .into_any()
}

fn state(report: &HopReport) -> &'static str {
    if report.verified < report.head { "comparing" } else { "agrees" }
}

/// The end of a UUIDv7: what tells members apart.
fn short(member: &str) -> String {
    member.get(member.len().saturating_sub(8)..).unwrap_or(member).to_owned()
}

fn hop_words(hop: Hop) -> &'static str {
    match hop {
        Hop::Announced => "announced",
        Hop::Delivered => "delivered",
        Hop::Client => "received by a browser",
    }
}

fn alert_row(alert: &Alert) -> AnyView {
    let what = match alert.difference {
        Difference::Missing => "missing",
        Difference::Altered => "another event than the journal's",
        Difference::Unknown => "not in the journal",
        Difference::Stalled => "stands still",
        Difference::Disputed => "another member disagrees",
        Difference::ShownTwice => "shown twice",
    };
    let channel = alert.channel.map(|channel| channel.to_string()).unwrap_or_default();
    let partition = alert.partition.map(|at| format!(", partition {at}")).unwrap_or_default();
    view! {
        <li class="letter" data-testid="audit-alert">
            <div class="letter-row">
                <div class="letter-words">
                    <strong>{format!("{} {channel}: {what}", hop_words(alert.hop))}</strong>
                    <span class="chip chip-act">{format!("{} events", alert.events)}</span>
                    <span class="letter-at">{moment(alert.at)}</span>
                    <code>{format!(
                        "block {}, from offset {}{partition}, member {}",
                        alert.block, alert.offset, alert.member,
                    )}</code>
                </div>
            </div>
        </li>
    }
    .into_any()
}
