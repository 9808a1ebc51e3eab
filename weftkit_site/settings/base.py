"""What every installation shares. Read `environment.py` for where the values come from."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog

from engines.kit.tasks import FILES_DIRECTORY
from weftkit_site.settings import environment as env

ROOT = Path(__file__).resolve().parents[2]

# --- This installation ---------------------------------------------------------------------------
WEFTKIT_HOME = Path(env.text("WEFTKIT_HOME", str(ROOT / ".weftkit"))).resolve()
READ_WEFTKIT_TOML = env.weftkit_toml
WEFTKIT = READ_WEFTKIT_TOML(env.text("WEFTKIT_CONFIG"))
PORT_OFFSET = env.number("WEFTKIT_PORT_OFFSET", 0)
HOST_NAME = env.text("WEFTKIT_HOST_NAME", "local")
# The cells that instances of schema engines are put into, by name.
CELLS = env.words("WEFTKIT_CELL_NAMES") or ["local"]
PUBLIC_HOST = env.text("WEFTKIT_PUBLIC_HOST", "localhost")
REGION = env.text("WEFTKIT_REGION", "local")
TLS_CERT = env.text("WEFTKIT_TLS_CERT")
TLS_CA_PUBLIC = env.text("WEFTKIT_TLS_CA_PUBLIC")
# Where the data explorer reaches the data plane: as clients do, unless the network says otherwise.
DATAPLANE_HOST = env.text("WEFTKIT_DATAPLANE_HOST", PUBLIC_HOST)
CONSOLE_PORT = (8443 if TLS_CERT else 8088) + PORT_OFFSET
CONSOLE_URL = f"{'https' if TLS_CERT else 'http'}://{PUBLIC_HOST}:{CONSOLE_PORT}"

# --- Secrets -------------------------------------------------------------------------------------
SECRETS_DIR = Path(env.text("WEFTKIT_SECRETS_DIR", str(WEFTKIT_HOME / "secrets")))
SECRET_KEY = env.secret(SECRETS_DIR, "django.key")
# Secrets that clients sign with are derived from it, and nowhere kept.
MASTER_KEY = bytes.fromhex(env.secret(SECRETS_DIR, "master.key") or "")
PEPPERS = env.numbered_secrets(SECRETS_DIR, "pepper")
PEPPER_ID = max(PEPPERS, default=0)
BACKUP_KEYS = env.numbered_secrets(SECRETS_DIR, "backup")

# --- Django --------------------------------------------------------------------------------------
DEBUG = False
INSTALLED_APPS = [
    "weftkit_site",
    "tenants.core",
    "tenants.accounts",
    "tenants.iam",
    "tenants.usage",
    "tenants.instances",
    "tenants.operations",
    "tenants.publish",
    "tenants.audit",
    "tenants.backups",
    "tenants.billing",
    "tenants.webhooks",
    "tenants.console",
    "tenants.api",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.humanize",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "allauth.socialaccount",
    "allauth.socialaccount.providers.openid_connect",
    "allauth.usersessions",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "channels",
]
MIDDLEWARE = [
    "tenants.core.middleware.request_id",
    "tenants.core.middleware.nul_refusal",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "tenants.core.middleware.content_security_policy",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "weftkit_site.urls"
ASGI_APPLICATION = "weftkit_site.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [ROOT / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
DATABASES = {"default": env.database(env.text("WEFTKIT_DATABASE_URL", "postgresql:///weftkit"))}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LANGUAGE_CODE = "en-gb"
USE_I18N = False
USE_TZ = True
TIME_ZONE = "UTC"

# --- Sign-in -------------------------------------------------------------------------------------
AUTH_USER_MODEL = "accounts.User"
AUTH_PASSWORD_VALIDATORS = [
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 12},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "console:home"
LOGOUT_REDIRECT_URL = "account_login"
AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]
# "open", "closed", or "first": until somebody has signed up (the bootstrap's own owner aside).
SIGN_UP = env.one_of("WEFTKIT_SIGN_UP", ("first", "open", "closed"))
BOOTSTRAP_EMAIL = "owner@demo.local"
ACCOUNT_ADAPTER = "tenants.accounts.adapters.AccountAdapter"
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*"]
ACCOUNT_FORMS = {
    "login": "tenants.accounts.forms.SignInForm",
    "signup": "tenants.accounts.forms.SignUpForm",
}
ACCOUNT_CONFIRM_EMAIL_ON_GET = False
ACCOUNT_EMAIL_SUBJECT_PREFIX = "[WeftKit] "
ACCOUNT_EMAIL_NOTIFICATIONS = True
ACCOUNT_MAX_EMAIL_ADDRESSES = 5
ACCOUNT_REAUTHENTICATION_REQUIRED = True
ACCOUNT_SESSION_REMEMBER = True
# Failed sign-ins are counted by `accounts/sign_ins.py`, which attempts at one moment cannot pass.
ACCOUNT_RATE_LIMITS = {"login_failed": "100/m/ip,20/15m/key"}
MFA_ADAPTER = "tenants.accounts.adapters.SecondFactorAdapter"
MFA_SUPPORTED_TYPES = ["recovery_codes", "totp", "webauthn"]
MFA_PASSKEY_LOGIN_ENABLED = True
MFA_RECOVERY_CODES_SHOW_ONCE = True
MFA_RECOVERY_CODE_DIGITS = 10
MFA_TOTP_TOLERANCE = 1
# Browsers call http://localhost a safe place for passkeys; no other name without TLS.
MFA_WEBAUTHN_ALLOW_INSECURE_ORIGIN = PUBLIC_HOST == "localhost" and not TLS_CERT
SOCIALACCOUNT_ADAPTER = "tenants.accounts.adapters.ProviderAdapter"
OIDC_SIGN_UP = env.yes("WEFTKIT_OIDC_SIGN_UP")
SOCIALACCOUNT_PROVIDERS = env.oidc_provider(SECRETS_DIR)
# A provider that verifies addresses signs people into the accounts that have them.
SOCIALACCOUNT_EMAIL_AUTHENTICATION = env.yes("WEFTKIT_OIDC_TRUSTS_EMAIL")
SOCIALACCOUNT_EMAIL_AUTHENTICATION_AUTO_CONNECT = SOCIALACCOUNT_EMAIL_AUTHENTICATION

# --- Mail: to the server of WEFTKIT_EMAIL_URL; without one into files that the operator reads ----
MAIL_DIRECTORY = WEFTKIT_HOME / "mail"
MAIL = env.mail(env.text("WEFTKIT_EMAIL_URL"), MAIL_DIRECTORY)
EMAIL_BACKEND = MAIL["backend"]
EMAIL_FILE_PATH = MAIL["file_path"]
EMAIL_HOST, EMAIL_PORT = MAIL["host"], MAIL["port"]
EMAIL_HOST_USER, EMAIL_HOST_PASSWORD = MAIL["user"], MAIL["password"]
EMAIL_USE_TLS, EMAIL_USE_SSL = MAIL["starttls"], MAIL["tls"]
EMAIL_TIMEOUT = 10
DEFAULT_FROM_EMAIL = env.text("WEFTKIT_EMAIL_FROM", f"weftkit@{PUBLIC_HOST}")
# Nobody gets mail before an operator says how: then an address need not be proved to sign in.
ACCOUNT_EMAIL_VERIFICATION = "mandatory" if env.text("WEFTKIT_EMAIL_URL") else "optional"
INVITATION_LIFE = timedelta(days=7)

SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_SAMESITE = "Lax"
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"

# --- Static files: ours, and the API's documentation pages; no other host is asked ---------------
STATIC_URL = "static/"
STATICFILES_DIRS = [ROOT / "static"]
STATIC_ROOT: Path | None = WEFTKIT_HOME / "static"
WHITENOISE_ALLOW_ALL_ORIGINS = False

# --- Files: exports and uploads, where the instance hosts find them; backups, encrypted ----------
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    "files": {
        "BACKEND": "tenants.instances.depot.DurableStorage",
        "OPTIONS": {
            "location": WEFTKIT_HOME / FILES_DIRECTORY,
            "allow_overwrite": True,  # a part that is sent again after a crash
            "file_permissions_mode": 0o600,
            "directory_permissions_mode": 0o700,
        },
    },
    "backups": env.backup_storage(WEFTKIT_HOME / "backups"),
}

# --- REST API ------------------------------------------------------------------------------------
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "tenants.iam.authentication.ApiKeyAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_PARSER_CLASSES": ["tenants.core.parsers.BoundedJSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["tenants.api.conditional.TaggedRenderer"],
    "DEFAULT_PAGINATION_CLASS": "tenants.core.pagination.NewestFirst",
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "tenants.core.problems.exception_to_problem",
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
# Requests in so many seconds: of one key or person, of all keys of a tenant, and of one address
# as long as it has not shown who asks.
API_QUOTAS = {
    "caller": (env.number("WEFTKIT_API_REQUESTS_PER_MINUTE", 1200), 60),
    "tenant": (env.number("WEFTKIT_API_REQUESTS_PER_MINUTE_OF_TENANT", 6000), 60),
    "address": (env.number("WEFTKIT_API_REQUESTS_PER_MINUTE_OF_ADDRESS", 300), 60),
}
# Whether PATCH and DELETE must say with If-Match what they change.
API_REQUIRES_IF_MATCH = env.text("WEFTKIT_API_REQUIRES_IF_MATCH") == "yes"
SPECTACULAR_SETTINGS = {
    "OAS_VERSION": "3.1.0",
    "TITLE": "WeftKit admin API",
    "DESCRIPTION": "Tenants, members, keys, instances, credentials, operations and usage.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "COMPONENT_SPLIT_REQUEST": True,
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "tenants.api.schema.add_problems",
        "tenants.api.examples.add_examples",
        "tenants.api.samples.add_samples",
        "tenants.api.links.add_links",
    ],
    "ENUM_NAME_OVERRIDES": {
        "AuditDrainKind": "tenants.audit.models.DrainKind",
        "BackupKind": "tenants.backups.models.BackupKind",
        "BackupOrigin": "tenants.backups.models.BackupOrigin",
        "BackupState": "tenants.backups.models.BackupState",
        "BillingCollection": "tenants.billing.models.Collection",
        "BudgetScope": "tenants.billing.models.BudgetScope",
        "InvoiceState": "tenants.billing.models.InvoiceState",
        "Meter": "tenants.billing.models.Meter",
        "MemberRole": "tenants.accounts.models.MemberRole",
        "CredentialRole": "tenants.instances.models.CredentialRole",
        "DeliveryState": "tenants.webhooks.models.DeliveryState",
        "FileOrigin": "tenants.instances.models.FileOrigin",
        "FileState": "tenants.instances.models.FileState",
        "InstanceStatus": "tenants.instances.models.InstanceStatus",
        "OperationState": "tenants.operations.models.OperationState",
        "StepState": "tenants.operations.models.StepState",
    },
}

# --- Bounds of what one tenant can take ----------------------------------------------------------
FILES_PER_INSTANCE_MAX = env.number("WEFTKIT_FILES_PER_INSTANCE_MAX", 10)
INSTANCES_PER_TENANT_MAX = env.number("WEFTKIT_INSTANCES_PER_TENANT_MAX", 50)

# --- Webhooks ------------------------------------------------------------------------------------
WEBHOOK_TIMEOUT_S = 15.0  # of an attempt, from the name to the last byte
# Networks that are not public, or without TLS, where webhooks may go all the same: "127.0.0.0/8".
WEBHOOK_NETWORKS = env.words("WEFTKIT_WEBHOOK_NETWORKS")

# --- Operations and retention --------------------------------------------------------------------
# A worker renews its lease at least once a second; a reaper looks every three. So an operation
# whose worker was killed goes on within ten seconds.
OPERATION_LEASE_S = 6
# While it moves bytes it has longer: a slow object storage answers or fails within this.
OPERATION_WORK_LEASE_S = 30
# A host that lives answers in a fraction of this; one that does not must not keep all workers.
OPERATION_WAIT_IN_TASK_S = 5.0
QUARANTINE_RETENTION = timedelta(days=7)
SECRET_GRACE = timedelta(hours=24)
# How long an access token of `/identity/token` works, if its key is not revoked sooner.
IAM_TOKEN_LIFE_S = 3600
# One key's exchanges: each leaves an event, and a token works for an hour.
IAM_TOKENS_PER_MINUTE = env.number("WEFTKIT_IAM_TOKENS_PER_MINUTE", 60)
EXPORT_RETENTION = timedelta(days=7)
UPLOAD_RETENTION = timedelta(hours=24)
# Where drains of the kind "folder" store; empty: there are none.
AUDIT_DRAIN_FOLDER = env.text("WEFTKIT_AUDIT_DRAIN_FOLDER", str(WEFTKIT_HOME / "audit"))
# Days that audit events are kept, by plan: of several plans the longest counts; "" is any other.
# The database itself refuses less than seven.
AUDIT_RETENTION_DAYS = {"": 90, "lite": 30, "standard": 365, "platform": 365}

# --- Bills: what happens when (plans and prices are data) -----------------------------------------
# invoice: tenants pay, and come into arrears if they do not; internal: costs are only shown.
BILLING_COLLECTION = env.choice("WEFTKIT_BILLING_COLLECTION", "invoice", "internal")
INVOICE_DRAFT_TIME = timedelta(hours=48)  # for usage that comes in late
INVOICE_PAYMENT_TIME = timedelta(days=14)
ARREARS_GRACE = timedelta(days=7)

# --- Celery --------------------------------------------------------------------------------------
REDIS_URL = env.text("WEFTKIT_REDIS_URL", "redis://localhost:6379")
CELERY_BROKER_URL = env.celery_broker(REDIS_URL)
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None  # for ever
# A message of a killed worker comes back after this; operations do not wait for it (the reaper).
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "visibility_timeout": 600,
    "socket_timeout": 30,
    # A request that starts an operation does not wait for a broker that is away (the reaper again).
    "max_retries": 1,
    "interval_start": 0,
    "interval_step": 0.1,
}
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_TASK_SOFT_TIME_LIMIT = 90
CELERY_TASK_TIME_LIMIT = 120
CELERY_TIMEZONE = "UTC"
CELERY_BEAT_SCHEDULE_FILENAME = str(WEFTKIT_HOME / "celerybeat-schedule")
# `expires`: a beat that ran while the workers were away leaves no heap of the same task behind.
CELERY_BEAT_SCHEDULE = {
    name: {"task": task, "schedule": seconds, "options": {"expires": seconds}}
    for name, task, seconds in [
        ("reap operations", "operations.reap", 3.0),
        ("take usage in", "usage.roll_up", 5.0),
        ("take key use in", "publish.take_key_seen", 10.0),
        ("take audit in", "audit.take_in", 2.0),
        ("give audit events their places", "audit.link", 1.0),
        ("deliver audit events", "audit.drain", 2.0),
        ("forget old audit ids", "audit.forget_claims", 3600.0),
        ("make audit months and let old ones go", "audit.retention", 3600.0),
        ("purge what left quarantine", "instances.purge_due", 60.0),
        ("remove expired files", "instances.sweep_files", 300.0),
        ("forget hosts' old tasks", "publish.forget_tasks", 3600.0),
        ("start backups that are due", "backups.start_due", 15.0),
        ("end backups that are kept no longer", "backups.expire", 60.0),
        ("remove bytes of backups", "backups.sweep", 60.0),
        ("archive logs", "backups.ship_wal", 10.0),
        ("remove logs that no backup needs", "backups.expire_wal", 600.0),
        ("wrap backups' keys anew", "backups.rewrap_keys", 3600.0),
        ("drop expired secrets", "instances.sweep_secrets", 300.0),
        ("end what the data explorer used", "console.sweep_access", 300.0),
        ("sample what is held", "usage.sample", 300.0),
        ("follow storage quotas", "billing.follow_quotas", 5.0),
        ("follow overdue invoices", "billing.follow_overdue", 60.0),
        ("follow budgets", "billing.follow_budgets", 60.0),
        ("close months", "billing.close_months", 3600.0),
        ("mail notices", "billing.mail_notices", 10.0),
        ("forget old usage keys", "usage.forget_claims", 3600.0),
        ("forget old minutes of usage", "usage.forget_minutes", 3600.0),
        ("tell of keys that expire", "iam.tell_expiring_keys", 600.0),
        ("mail invitations", "accounts.mail_invitations", 10.0),
        ("deliver webhooks", "webhooks.deliver", 5.0),
        ("deliver failing webhooks", "webhooks.deliver_to_failing", 5.0),
        ("forget old webhook deliveries", "webhooks.forget", 3600.0),
        ("forget old idempotency keys", "api.forget_keys", 3600.0),
        ("rotate signing keys", "iam.rotate_signing_keys", 3600.0),
        ("drop expired secrets of API keys", "iam.sweep", 300.0),
        ("forget old sessions and sign-ins", "accounts.forget_sign_ins", 3600.0),
    ]
}

# --- Cache: limits of rates, for all web processes; in the database, so that people can sign in
# while Redis is away. A migration of `accounts` makes the table. --------------------------------
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.db.DatabaseCache",
        "LOCATION": "weftkit_cache",
        "OPTIONS": {"MAX_ENTRIES": 100_000},
    }
}

# --- Channels ------------------------------------------------------------------------------------
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.core.RedisChannelLayer",
        "CONFIG": {"hosts": [{"address": env.redis_database(REDIS_URL, 1)}]},
    }
}

# --- Logs: one JSON object a line, with the request id ------------------------------------------
SHARED_PROCESSORS: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]
structlog.configure(
    processors=[*SHARED_PROCESSORS, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
    logger_factory=structlog.stdlib.LoggerFactory(),
    wrapper_class=structlog.stdlib.BoundLogger,
    cache_logger_on_first_use=True,
)
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "json": {
            "()": structlog.stdlib.ProcessorFormatter,
            "foreign_pre_chain": SHARED_PROCESSORS,
            "processors": [
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
        }
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
    # They say at INFO that a task came, went, and is due again: several lines a second.
    "loggers": {
        name: {"level": "WARNING"}
        for name in ("celery.app.trace", "celery.beat", "celery.worker.strategy")
    },
    "root": {"handlers": ["stderr"], "level": env.log_level("WEFTKIT_LOG_LEVEL")},
}
