//! `vaultctl honey`.

use clap::{Args, Subcommand};
use vault_client::{HoneyToken, PlantRequest, api};
use zeroize::Zeroizing;

use crate::{
    complaint::Complaint,
    input,
    session::Session,
    table::{Table, or_dash},
};

const EXAMPLES: &str = "\
A honey token stands for no card. Put it where only a thief looks: whoever tries to reveal it is locked.

Examples:
  vaultctl honey plant --tenant shop --note 'in the orders table, row 1'
  vaultctl honey list
  vaultctl honey remove shop 0198c0de-7a31-7c55-9d5e-0a1b2c3d4e5f";

/// Options of `honey`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Honey {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Subcommand)]
enum Action {
    /// Make a honey token
    Plant {
        /// The tenant whose token it is to look like
        #[arg(long)]
        tenant: String,
        /// The template that says how it looks
        #[arg(long)]
        template: Option<String>,
        /// Where it is put, for whoever gets the alarm
        #[arg(long)]
        note: Option<String>,
    },
    /// List every honey token; what `honey` alone does
    List,
    /// Remove a honey token
    Remove {
        /// The tenant, as `honey list` shows it
        tenant: String,
        /// The token; `-` reads it from standard input
        token: String,
    },
}

impl Honey {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Complaint> {
        let admin = session.admin()?;
        match self.action {
            Some(Action::Plant { tenant, template, note }) => {
                let token = admin.plant_honey(&PlantRequest { tenant, template, note }).await?;
                session.output.answer(&token, |token| table(std::slice::from_ref(token)))
            }
            None | Some(Action::List) => {
                let tokens = api::HoneyTokens { tokens: admin.honey().await? };
                session.output.answer(&tokens, |tokens| table(&tokens.tokens))
            }
            Some(Action::Remove { tenant, token }) => {
                let token = input::dash(token, "Token")?;
                admin.remove_honey(&tenant, token.expose()).await?;
                session.output.text(if session.output.is_json() { "{}\n" } else { "removed\n" })
            }
        }
    }
}

fn table(tokens: &[HoneyToken]) -> Zeroizing<String> {
    let mut table = Table::new(["TOKEN", "TENANT", "TEMPLATE", "PLANTED", "NOTE"]);
    for token in tokens {
        table.row([
            token.token.clone(),
            token.tenant.clone(),
            token.template.clone(),
            token.planted_at.to_string(),
            or_dash(token.note.as_deref()),
        ]);
    }
    table.text()
}
