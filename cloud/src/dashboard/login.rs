//! Signing in with the viewer token, which becomes a session cookie that no script can read.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, LOCATION, SET_COOKIE};
use actix_web::web::{Data, Form};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;

use super::html::{Html, esc};
use super::{Frame, failed, respond};
use crate::api::params::Params;
use crate::api::{ApiState, SESSION_COOKIE, SESSION_S};

/// Guessing is slow, whatever the token.
const REFUSAL_DELAY: Duration = Duration::from_millis(500);

#[derive(Deserialize)]
pub(super) struct SignIn {
    token: String,
    #[serde(default)]
    next: String,
}

pub(super) async fn page(request: HttpRequest) -> HttpResponse {
    match Params::parse(request.query_string(), &["next"]) {
        Ok(params) => form(StatusCode::OK, params.text("next").unwrap_or("/"), false),
        Err(error) => failed(&error, &request),
    }
}

pub(super) async fn sign_in(request: HttpRequest, state: Data<ApiState>, form_data: Form<SignIn>) -> HttpResponse {
    let SignIn { token, next } = form_data.into_inner();
    let Some(viewer) = &state.viewer else { return to("/", None) };
    if !viewer.is(&token) {
        tokio::time::sleep(REFUSAL_DELAY).await;
        tracing::warn!(peer = ?request.peer_addr(), "a sign-in with a wrong token");
        return form(StatusCode::UNAUTHORIZED, &next, true);
    }
    // Behind a proxy that speaks TLS; on plain HTTP a browser would drop a secure cookie.
    let secure = request.connection_info().scheme() == "https";
    to(local_path(&next), Some(cookie(&viewer.session(state.clock.now()), SESSION_S, secure)))
}

pub(super) async fn sign_out() -> HttpResponse {
    to("/login", Some(cookie("", 0, false)))
}

fn cookie(value: &str, max_age_s: i64, secure: bool) -> String {
    let secure = if secure { "; Secure" } else { "" };
    format!("{SESSION_COOKIE}={value}; Path=/; Max-Age={max_age_s}; HttpOnly; SameSite=Strict{secure}")
}

/// Nowhere but here: `//host` and `/\host` are other hosts to a browser.
fn local_path(next: &str) -> &str {
    let here = next.starts_with('/')
        && !next.starts_with("//")
        && next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if here { next } else { "/" }
}

fn to(path: &str, cookie: Option<String>) -> HttpResponse {
    let mut response = HttpResponse::SeeOther();
    response.insert_header((LOCATION, path)).insert_header((CACHE_CONTROL, "no-store"));
    if let Some(cookie) = cookie {
        response.insert_header((SET_COOKIE, cookie));
    }
    response.finish()
}

fn form(status: StatusCode, next: &str, refused: bool) -> HttpResponse {
    let mut main = Html::default();
    main.raw("<section class=\"sign-in\"><h1>Sign in</h1>");
    if refused {
        main.raw("<p class=\"refusal\" role=\"alert\">That is not the viewer token of this head-end.</p>");
    }
    main.put(format_args!(
        "<form method=\"post\" action=\"/login\"><input type=\"hidden\" name=\"next\" value=\"{}\">\
         <label for=\"token\">Viewer token</label>\
         <input id=\"token\" name=\"token\" type=\"password\" autocomplete=\"current-password\" required autofocus>\
         <button class=\"primary\">Sign in</button></form>\
         <p class=\"faint\">The token is in the file that <code>viewer_token_file</code> names in the head-end's settings.</p>\
         </section>",
        esc(local_path(next))
    ));
    respond(status, &Frame { title: "Sign in", zone: "", refresh_s: None, signed_in: false }, &main)
}
