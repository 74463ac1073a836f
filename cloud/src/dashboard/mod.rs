//! The pages: rendered here, styled by one file, brought to life by one script. They load nothing from anywhere else, and the
//! Content-Security-Policy holds them to that.

mod assets;
mod html;
mod login;
mod meter;
mod overview;
mod tables;
#[cfg(test)]
mod tests;

use actix_web::http::StatusCode;
use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, ContentType, LOCATION, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, ResponseError};

use self::assets::{ICON, SCRIPT, STYLE};
use self::html::{Html, esc, query};
use crate::api::{ApiError, check};

const POLICY: &str =
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'";

pub fn configure(config: &mut ServiceConfig) {
    config
        .route("/", web::get().to(overview::page))
        .route("/meters/{meter}", web::get().to(meter::page))
        .route("/login", web::get().to(login::page))
        .route("/login", web::post().to(login::sign_in))
        .route("/logout", web::post().to(login::sign_out))
        .route("/assets/{name}", web::get().to(assets::asset));
}

/// What every page has in common.
struct Frame<'a> {
    title: &'a str,
    zone: &'a str,
    /// Seconds after which the script fetches the page anew.
    refresh_s: Option<u32>,
    signed_in: bool,
}

fn respond(status: StatusCode, frame: &Frame<'_>, main: &Html) -> HttpResponse {
    let mut html = Html::default();
    html.put(format_args!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><title>{} · Meterpost</title>\
         <link rel=\"icon\" href=\"/assets/{}\"><link rel=\"stylesheet\" href=\"/assets/{}\">\
         <script src=\"/assets/{}\" defer></script></head><body>",
        esc(frame.title),
        ICON.name,
        STYLE.name,
        SCRIPT.name
    ));
    html.put(format_args!(
        "<header class=\"bar\"><a class=\"brand\" href=\"/\"><img src=\"/assets/{}\" alt=\"\" width=\"20\" height=\"20\">\
         Meterpost</a><span class=\"spring\"></span><span class=\"live\" id=\"live\" role=\"status\"></span>\
         <span class=\"faint zone\">{}</span>",
        ICON.name,
        esc(frame.zone)
    ));
    if frame.signed_in {
        html.raw("<form method=\"post\" action=\"/logout\"><button class=\"quiet\">Sign out</button></form>");
    }
    let refresh = frame.refresh_s.map(|seconds| format!(" data-refresh-s=\"{seconds}\"")).unwrap_or_default();
    html.put(format_args!("</header><main{refresh}>{}</main></body></html>\n", main.0));
    HttpResponse::build(status)
        .insert_header(ContentType::html())
        .insert_header((CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((REFERRER_POLICY, "same-origin"))
        .insert_header((CACHE_CONTROL, "no-store"))
        .body(html.0)
}

/// A page in place of one that cannot be shown; without a session the way to the sign-in page.
fn failed(error: &ApiError, request: &HttpRequest) -> HttpResponse {
    if matches!(error, ApiError::Token) {
        let back = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let to = format!("/login?next={}", query(back));
        return HttpResponse::SeeOther()
            .insert_header((LOCATION, to))
            .insert_header((CACHE_CONTROL, "no-store"))
            .finish();
    }
    let mut main = Html::default();
    main.put(format_args!(
        "<section class=\"notice\"><h1>{}</h1><p>{}</p><p><a href=\"/\">Back to the overview</a></p></section>",
        esc(error),
        esc(error.hint())
    ));
    let frame = Frame { title: "Not shown", zone: "", refresh_s: None, signed_in: false };
    respond(error.status_code(), &frame, &main)
}

/// Shows what `render` comes to, to those who may see it.
async fn show(request: &HttpRequest, render: impl Future<Output = Result<HttpResponse, ApiError>>) -> HttpResponse {
    let shown = match check(request) {
        Ok(()) => render.await,
        Err(error) => Err(error),
    };
    shown.unwrap_or_else(|error| failed(&error, request))
}
