"""The addresses of the REST admin API v1, and of its OpenAPI document and pages."""

from django.urls import path
from django.views import View
from drf_spectacular.views import SpectacularAPIView

from tenants.accounts import apis as accounts
from tenants.accounts import invitation_apis as invitations
from tenants.api import orientation
from tenants.api.docs import DocsView
from tenants.audit import apis as audit
from tenants.audit import drain_apis as drains
from tenants.backups import apis as backups
from tenants.billing import apis as billing
from tenants.billing import operator_apis as operator
from tenants.iam import apis as iam
from tenants.iam import policy_apis as policies
from tenants.instances import apis as instances
from tenants.instances import credential_apis as credentials
from tenants.instances import file_apis as files
from tenants.operations import apis as operations
from tenants.usage import apis as usage
from tenants.webhooks import apis as webhooks

app_name = "api"

TENANT = "tenants/<str:tenant>"
INSTANCE = f"{TENANT}/instances/<str:instance>"
BACKUP = f"{TENANT}/backups/<uuid:backup_id>"
CREDENTIAL = f"{INSTANCE}/credentials/<uuid:credential_id>"
FILE = f"{INSTANCE}/files/<uuid:file_id>"
INVOICE = f"{TENANT}/invoices/<uuid:invoice_id>"
ANY_INVOICE = "operator/invoices/<uuid:invoice_id>"
OPERATION = f"{TENANT}/operations/<uuid:operation_id>"
WEBHOOK = f"{TENANT}/webhooks/<uuid:webhook_id>"
DELIVERY = f"{WEBHOOK}/deliveries/<uuid:delivery_id>"

# Each address with its name and its view.
ADDRESSES: list[tuple[str, str, type[View]]] = [
    ("", "index", orientation.IndexApi),
    ("audit-actions", "audit-actions", audit.ActionListApi),
    ("docs", "docs", DocsView),
    ("engines", "engines", instances.EngineListApi),
    ("operator/accounts/<str:handle>", "operator-account", operator.OperatorAccountApi),
    ("operator/invoices", "operator-invoices", operator.OperatorInvoiceListApi),
    (f"{ANY_INVOICE}/credit-notes", "operator-credit-notes", operator.OperatorCreditNoteApi),
    (f"{ANY_INVOICE}/payments", "operator-payments", operator.OperatorPaymentApi),
    ("operator/price-lists", "operator-price-lists", operator.OperatorPriceListApi),
    ("me", "me", orientation.MeApi),
    ("plans", "plans", usage.PlanListApi),
    ("price-lists", "price-lists", billing.PriceListApi),
    ("roles", "roles", policies.RoleListApi),
    ("sessions", "sessions", accounts.SessionListApi),
    ("sessions/<int:session_id>", "session", accounts.SessionDetailApi),
    ("sessions/revoke-others", "sessions-revoke-others", accounts.SessionOthersApi),
    ("tenants", "tenants", accounts.TenantListApi),
    (TENANT, "tenant", accounts.TenantDetailApi),
    (f"{TENANT}/api-keys", "api-keys", iam.ApiKeyListApi),
    (f"{TENANT}/api-keys/<uuid:key_id>", "api-key", iam.ApiKeyDetailApi),
    (f"{TENANT}/api-keys/<uuid:key_id>/reroll", "api-key-reroll", iam.ApiKeyRerollApi),
    (f"{TENANT}/audit", "audit", audit.AuditListApi),
    (f"{TENANT}/audit/<uuid:event_id>", "audit-event", audit.AuditDetailApi),
    (f"{TENANT}/audit/drains", "audit-drains", drains.DrainListApi),
    (f"{TENANT}/audit/drains/<uuid:drain_id>", "audit-drain", drains.DrainDetailApi),
    (f"{TENANT}/audit/export", "audit-export", audit.AuditExportApi),
    (f"{TENANT}/audit/head", "audit-head", audit.AuditHeadApi),
    (f"{TENANT}/audit/verify", "audit-verify", audit.AuditVerifyApi),
    (f"{TENANT}/backups", "backups", backups.BackupListApi),
    (BACKUP, "backup", backups.BackupDetailApi),
    (f"{BACKUP}/restore", "backup-restore", backups.BackupRestoreApi),
    (f"{BACKUP}/verify", "backup-verify", backups.BackupVerifyApi),
    (f"{TENANT}/billing", "billing", billing.AccountApi),
    (f"{TENANT}/billing/cost-report", "cost-report", billing.CostReportApi),
    (f"{TENANT}/billing/preview", "invoice-preview", billing.PreviewApi),
    (f"{TENANT}/budgets", "budgets", billing.BudgetListApi),
    (f"{TENANT}/budgets/<uuid:budget_id>", "budget", billing.BudgetDetailApi),
    (f"{TENANT}/iam/check", "iam-check", policies.IamCheckApi),
    (f"{TENANT}/instances", "instances", instances.InstanceListApi),
    (INSTANCE, "instance", instances.InstanceDetailApi),
    (f"{INSTANCE}/audit", "instance-audit", audit.InstanceAuditApi),
    (f"{INSTANCE}/backup-schedule", "backup-schedule", backups.BackupScheduleApi),
    (f"{INSTANCE}/backups", "instance-backups", backups.InstanceBackupListApi),
    (f"{INSTANCE}/clone", "instance-clone", backups.InstanceCloneApi),
    (f"{INSTANCE}/connection", "instance-connection", instances.InstanceConnectionApi),
    (f"{INSTANCE}/credentials", "credentials", credentials.CredentialListApi),
    (CREDENTIAL, "credential", credentials.CredentialDetailApi),
    (f"{CREDENTIAL}/rotate", "credential-rotate", credentials.CredentialRotateApi),
    (f"{INSTANCE}/export", "instance-export", files.InstanceExportApi),
    (f"{INSTANCE}/files", "files", files.FileListApi),
    (FILE, "file", files.FileDetailApi),
    (f"{FILE}/content", "file-content", files.FileContentApi),
    (f"{INSTANCE}/hibernate", "instance-hibernate", instances.InstanceHibernateApi),
    (f"{INSTANCE}/import", "instance-import", files.InstanceImportApi),
    (f"{INSTANCE}/restore", "instance-restore", backups.InstanceRestoreApi),
    (f"{INSTANCE}/restore-window", "restore-window", backups.RestoreWindowApi),
    (f"{INSTANCE}/resume", "instance-resume", instances.InstanceResumeApi),
    (f"{INSTANCE}/scale", "instance-scale", instances.InstanceScaleApi),
    (f"{INSTANCE}/suspend", "instance-suspend", instances.InstanceSuspendApi),
    (f"{INSTANCE}/undelete", "instance-undelete", instances.InstanceUndeleteApi),
    (f"{INSTANCE}/wake", "instance-wake", instances.InstanceWakeApi),
    (f"{INSTANCE}/usage", "instance-usage", usage.InstanceUsageApi),
    (f"{INSTANCE}/usage/series", "instance-usage-series", usage.InstanceUsageSeriesApi),
    (f"{TENANT}/invoices", "invoices", billing.InvoiceListApi),
    (INVOICE, "invoice", billing.InvoiceDetailApi),
    (f"{INVOICE}/csv", "invoice-csv", billing.InvoiceCsvApi),
    (f"{INVOICE}/lines", "invoice-lines", billing.InvoiceLinesApi),
    (f"{TENANT}/invitations", "invitations", invitations.InvitationListApi),
    (f"{TENANT}/invitations/<uuid:invitation_id>", "invitation", invitations.InvitationDetailApi),
    (
        f"{TENANT}/invitations/<uuid:invitation_id>/resend",
        "invitation-resend",
        invitations.InvitationResendApi,
    ),
    (f"{TENANT}/leave", "tenant-leave", accounts.TenantLeaveApi),
    (f"{TENANT}/members", "members", accounts.MemberListApi),
    (f"{TENANT}/members/<uuid:member_id>", "member", accounts.MemberDetailApi),
    (f"{TENANT}/my-keys", "my-keys", iam.OwnKeyListApi),
    (f"{TENANT}/my-keys/<uuid:key_id>", "my-key", iam.OwnKeyDetailApi),
    (f"{TENANT}/my-keys/<uuid:key_id>/reroll", "my-key-reroll", iam.OwnKeyRerollApi),
    (f"{TENANT}/notices", "notices", billing.NoticeListApi),
    (f"{TENANT}/operations", "operations", operations.OperationListApi),
    (OPERATION, "operation", operations.OperationDetailApi),
    (f"{OPERATION}/cancel", "operation-cancel", operations.OperationCancelApi),
    (f"{OPERATION}/reset", "operation-reset", operations.OperationResetApi),
    (f"{OPERATION}/retry", "operation-retry", operations.OperationRetryApi),
    (f"{TENANT}/policies", "policies", policies.PolicyListApi),
    (f"{TENANT}/policies/<uuid:policy_id>", "policy", policies.PolicyDetailApi),
    (f"{TENANT}/service-ids", "service-ids", policies.ServiceIdListApi),
    (f"{TENANT}/service-ids/<uuid:service_id>", "service-id", policies.ServiceIdDetailApi),
    (f"{TENANT}/transfer", "tenant-transfer", accounts.TenantTransferApi),
    (f"{TENANT}/usage", "usage", usage.UsageListApi),
    (f"{TENANT}/webhooks", "webhooks", webhooks.WebhookListApi),
    (WEBHOOK, "webhook", webhooks.WebhookDetailApi),
    (f"{WEBHOOK}/deliveries", "webhook-deliveries", webhooks.DeliveryListApi),
    (DELIVERY, "webhook-delivery", webhooks.DeliveryDetailApi),
    (f"{DELIVERY}/redeliver", "webhook-redeliver", webhooks.DeliveryRedeliverApi),
    (f"{WEBHOOK}/rotate", "webhook-rotate", webhooks.WebhookRotateApi),
    (f"{WEBHOOK}/test", "webhook-test", webhooks.WebhookTestApi),
    ("webhook-event-types", "webhook-event-types", webhooks.WebhookEventTypesApi),
]

urlpatterns = [
    # No secret is in the document, so nobody has to sign in to read it.
    path(
        "schema",
        SpectacularAPIView.as_view(authentication_classes=[], permission_classes=[]),
        name="schema",
    ),
    *(path(address, view.as_view(), name=name) for address, name, view in ADDRESSES),
]
