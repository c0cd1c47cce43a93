//! A ticket opened by hand.

use domain::{AgentCommand, CommandId, ContactId, Interaction, InteractionId, Kind, Priority};
use leptos::prelude::*;
use leptos_router::hooks::use_navigate;

use super::dialog::FormDialog;
use super::erased::effect;
use super::failures::reason;
use super::wiring::{Tell, Wiring, address, wiring};
use crate::browser;
use crate::state::{Outgoing, Progress};

const DIALOG: &str = "#new-ticket";
const FORM: &str = "#new-ticket-form";
const FIELDS: [&str; 6] = ["subject", "body", "priority", "queue", "tags", "for"];

/// The ticket that a command opens: one id gives one ticket.
fn ticket_of(command: CommandId) -> InteractionId {
    InteractionId::derive("", Kind::Ticket, &command.to_string())
}

fn open_ticket(
    [subject, body, priority, queue, tags, named]: [String; 6],
    contact: Option<ContactId>,
) -> AgentCommand {
    let tags = tags.split(',').map(|tag| tag.trim().to_lowercase());
    let queue = queue.trim().to_owned();
    AgentCommand::OpenTicket {
        subject: subject.trim().to_owned(),
        body: body.trim().to_owned(),
        priority: priority.parse().ok(),
        contact_id: contact.filter(|_| !named.is_empty()),
        queue: Some(queue).filter(|queue| !queue.is_empty()),
        tags: tags.filter(|tag| !tag.is_empty()).collect(),
    }
}

fn outgoing(ui: Wiring, id: Option<CommandId>) -> Option<Outgoing> {
    ui.desk.with(|desk| desk.outgoing.iter().find(|one| Some(one.id) == id).cloned())
}

/// The dialog. What is written in it stays until the ticket is there.
#[component]
pub(super) fn NewTicket() -> impl IntoView {
    let ui = wiring();
    let current = ui.current();
    let contact = move |row: &Option<Interaction>| {
        let contact = row.as_ref()?.contact.as_ref()?;
        Some((contact.id?, contact.label().unwrap_or("this contact").to_owned()))
    };
    let given = RwSignal::new(None::<CommandId>);
    let progress = Memo::new(move |_| outgoing(ui, given.get()).map(|one| one.progress));
    let busy = move || progress.get() == Some(Progress::Pending);
    let submit = Callback::new(move |event| {
        let fields = browser::fields_of(&event, FIELDS);
        let command = open_ticket(fields, current.with_untracked(contact).map(|(id, _)| id));
        // The same once more is the same command: it may have been done.
        match untrack(|| outgoing(ui, given.get())) {
            Some(Outgoing { id, command: before, progress: Progress::Failed(error), .. })
                if error.temporary && before == command =>
            {
                ui.tell(Tell::Retry(id));
            }
            _ => given.set(ui.follow(command)),
        }
    });
    let navigate = use_navigate();
    effect(move || {
        let Some(ticket) = given.get().map(ticket_of) else { return };
        if ui.desk.with(|desk| desk.rows.contains_key(&ticket)) {
            given.set(None);
            browser::reset_form(FORM);
            if browser::close_dialog(DIALOG) {
                let to = ui.filter.with_untracked(|it| address(Some(ticket), it.view, it.channel));
                navigate(&to, leptos_router::NavigateOptions::default());
            }
        }
    });
    let failure = move || {
        let Some(Progress::Failed(error)) = progress.get() else { return None };
        let failure = view! {
            <p class="form-error" role="alert" data-testid="new-ticket-error">{reason(&error)}</p>
        };
        Some(failure.into_any())
    };
    let named = move || {
        current.with(contact).map(|(_, name)| {
            view! {
                <label class="check">
                    <input name="for" type="checkbox" checked data-testid="new-ticket-for"/>
                    {format!("For {name}")}
                </label>
            }
            .into_any()
        })
    };
    let priority = |priority: &Priority| {
        view! {
            <option value=priority.as_str() selected=*priority == Priority::Medium>
                {priority.as_str()}
            </option>
        }
        .into_any()
    };
    let send = view! {
        <button class="button primary" type="submit" data-testid="new-ticket-submit"
            aria-busy=move || busy().to_string() disabled=busy>
            {move || if busy() { "Opening\u{2026}" } else { "Open the ticket" }}
        </button>
    };
    view! {
        <FormDialog name="new-ticket" title="Open a ticket" wide=true submit send=send.into_any()>
            <label>
                "Subject"
                <input name="subject" maxlength="300" required autocomplete="off"
                    data-testid="new-ticket-subject"/>
            </label>
            <label>
                "Description"
                <textarea name="body" rows="5" required data-testid="new-ticket-body"></textarea>
            </label>
            <div class="dialog-fields">
                <label>
                    "Priority"
                    <select name="priority" data-testid="new-ticket-priority">
                        {Priority::ALL.iter().map(priority).collect_view()}
                    </select>
                </label>
                <label>
                    "Queue"
                    <input name="queue" list="queues" maxlength="200" autocomplete="off"
                        data-testid="new-ticket-queue"/>
                </label>
                <label>
                    "Tags"
                    <input name="tags" placeholder="a, b" autocomplete="off"
                        data-testid="new-ticket-tags"/>
                </label>
            </div>
            {move || named()}
            {move || failure()}
        </FormDialog>
    }
    .into_any()
}
