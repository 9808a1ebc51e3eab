"""Backups, point-in-time recovery, restores, exports to S3 and imports from it, bulk operations."""

from __future__ import annotations

from engines.keyvalue.parse.operations import steps
from engines.keyvalue.parse.operations.members import (
    ATTRIBUTE_DEFINITIONS,
    BACKUP_ARN,
    BILLING_MODE,
    EXPRESSION_NAMES,
    EXPRESSION_VALUES,
    GLOBAL_INDEXES,
    KEY_SCHEMA,
    LOCAL_INDEXES,
    ON_DEMAND_THROUGHPUT,
    PROVISIONED_THROUGHPUT,
    SSE,
    TABLE_NAME,
    VECTOR_INDEXES,
)
from engines.keyvalue.parse.operations.plan import Operation
from engines.keyvalue.parse.shapes import (
    FLAG,
    MOMENT,
    TABLE,
    TABLE_NAME_PATTERN,
    choice,
    each,
    integer,
    long,
    record,
    text,
)

_ARN = text(37, 1024)
_CLIENT_TOKEN = text(0, None, r"^[^\$]+$")
_BUCKET = text(0, 255, r"^[a-z0-9A-Z]+[\.\-\w]*[a-z0-9A-Z]+$")
_BUCKET_OWNER = text(0, None, "[0-9]{12}")
_PREFIX = text(0, 1024)
_ENCRYPTION = choice("AES256", "KMS")
_KEY_ID = text(1, 2048)
_TOKEN = text(1, 1024, "([0-9a-f]{16})+")
_COMPRESSION = choice("GZIP", "ZSTD", "NONE")
# What both kinds of restores put in the place of what the table had.
_OVERRIDES = {
    "TargetTableName": TABLE_NAME.required,
    "BillingModeOverride": BILLING_MODE,
    "GlobalSecondaryIndexOverride": GLOBAL_INDEXES,
    "LocalSecondaryIndexOverride": LOCAL_INDEXES,
    "ProvisionedThroughputOverride": PROVISIONED_THROUGHPUT,
    "OnDemandThroughputOverride": ON_DEMAND_THROUGHPUT,
    "SSESpecificationOverride": SSE,
    "VectorIndexOverride": VECTOR_INDEXES,
}

OPERATIONS = {
    "CancelBulkOperation": Operation(
        record("CancelBulkOperationInput", BulkOperationArn=_ARN.required)
    ),
    "CreateBackup": Operation(
        record(
            "CreateBackupInput",
            TableName=TABLE.required,
            BackupName=text(3, 255, TABLE_NAME_PATTERN).required,
        ),
        steps=(steps.table,),
    ),
    "DeleteBackup": Operation(record("DeleteBackupInput", BackupArn=BACKUP_ARN.required)),
    "DescribeBackup": Operation(record("DescribeBackupInput", BackupArn=BACKUP_ARN.required)),
    "DescribeBulkOperation": Operation(
        record("DescribeBulkOperationInput", BulkOperationArn=_ARN.required)
    ),
    "DescribeExport": Operation(record("DescribeExportInput", ExportArn=_ARN.required)),
    "DescribeImport": Operation(record("DescribeImportInput", ImportArn=_ARN.required)),
    "ExportTableToPointInTime": Operation(
        record(
            "ExportTableToPointInTimeInput",
            TableArn=TABLE.required,
            ExportTime=MOMENT,
            ClientToken=_CLIENT_TOKEN,
            S3Bucket=_BUCKET.required,
            S3BucketOwner=_BUCKET_OWNER,
            S3Prefix=_PREFIX,
            S3SseAlgorithm=_ENCRYPTION,
            S3SseKmsKeyId=_KEY_ID,
            ExportFormat=choice("DYNAMODB_JSON", "ION"),
            ExportType=choice("FULL_EXPORT", "INCREMENTAL_EXPORT"),
            IncrementalExportSpecification=record(
                "IncrementalExportSpecification",
                ExportFromTime=MOMENT,
                ExportToTime=MOMENT,
                ExportViewType=choice("NEW_IMAGE", "NEW_AND_OLD_IMAGES"),
            ),
            FilterSpecification=record(
                "FilterSpecification",
                FilterExpression=text(),
                ProjectionExpression=text(),
                KeyConditionExpression=text(),
                ExpressionAttributeNames=EXPRESSION_NAMES,
                ExpressionAttributeValues=EXPRESSION_VALUES,
            ),
        )
    ),
    "ImportTable": Operation(
        record(
            "ImportTableInput",
            ClientToken=_CLIENT_TOKEN,
            S3BucketSource=record(
                "S3BucketSource",
                S3BucketOwner=_BUCKET_OWNER,
                S3Bucket=_BUCKET.required,
                S3KeyPrefix=_PREFIX,
            ).required,
            InputFormat=choice("DYNAMODB_JSON", "ION", "CSV").required,
            InputFormatOptions=record(
                "InputFormatOptions",
                Csv=record(
                    "CsvOptions",
                    Delimiter=text(1, 1, r"[,;:|\t ]"),
                    HeaderList=each(text(1, 65536, r"[\x20-\x21\x23-\x2B\x2D-\x7E]*"), 1, 255),
                ),
            ),
            InputCompressionType=_COMPRESSION,
            TableCreationParameters=record(
                "TableCreationParameters",
                TableName=TABLE_NAME.required,
                AttributeDefinitions=ATTRIBUTE_DEFINITIONS.required,
                KeySchema=KEY_SCHEMA.required,
                BillingMode=BILLING_MODE,
                ProvisionedThroughput=PROVISIONED_THROUGHPUT,
                OnDemandThroughput=ON_DEMAND_THROUGHPUT,
                SSESpecification=SSE,
                GlobalSecondaryIndexes=GLOBAL_INDEXES,
                VectorIndexes=VECTOR_INDEXES,
            ).required,
        )
    ),
    "ListBackups": Operation(
        record(
            "ListBackupsInput",
            TableName=TABLE,
            Limit=integer(1, 100),
            TimeRangeLowerBound=MOMENT,
            TimeRangeUpperBound=MOMENT,
            ExclusiveStartBackupArn=BACKUP_ARN,
            BackupType=choice("USER", "SYSTEM", "AWS_BACKUP", "ALL"),
        ),
        steps=(steps.table,),
    ),
    "ListBulkOperations": Operation(
        record("ListBulkOperationsInput", MaxResults=integer(1, 25), NextToken=_TOKEN)
    ),
    "ListExports": Operation(
        record("ListExportsInput", TableArn=TABLE, MaxResults=integer(1, 25), NextToken=text())
    ),
    "ListImports": Operation(
        record(
            "ListImportsInput",
            TableArn=TABLE,
            PageSize=integer(1, 25),
            NextToken=text(112, 1024, "([0-9a-f]{16})+"),
        )
    ),
    "RestoreTableFromBackup": Operation(
        record("RestoreTableFromBackupInput", BackupArn=BACKUP_ARN.required, **_OVERRIDES)
    ),
    "RestoreTableToPointInTime": Operation(
        record(
            "RestoreTableToPointInTimeInput",
            SourceTableArn=TABLE,
            SourceTableName=TABLE_NAME,
            UseLatestRestorableTime=FLAG,
            RestoreDateTime=MOMENT,
            **_OVERRIDES,
        )
    ),
    "StartBulkPutItems": Operation(
        record(
            "StartBulkPutItemsInput",
            ClientToken=_CLIENT_TOKEN,
            InputS3Configuration=record(
                "InputS3Configuration",
                S3BucketOwner=_BUCKET_OWNER,
                S3Bucket=_BUCKET.required,
                S3KeyPrefix=_PREFIX,
                InputFormat=choice("DYNAMODB_JSON", "ION").required,
                InputCompressionType=_COMPRESSION,
            ).required,
            OutputS3Configuration=record(
                "OutputS3Configuration",
                S3BucketOwner=_BUCKET_OWNER,
                S3Bucket=_BUCKET,
                S3KeyPrefix=_PREFIX,
                S3SseAlgorithm=_ENCRYPTION,
                S3SseKmsKeyId=_KEY_ID,
                OutputType=each(choice("ERROR", "CONDITION_CHECK_FAILURE")).required,
            ).required,
            TableName=TABLE.required,
            MaxWriteRequestUnits=long(1024),
            PerformanceTier=choice("STANDARD", "ACCELERATED"),
        ),
        steps=(steps.table,),
    ),
    "UpdateContinuousBackups": Operation(
        record(
            "UpdateContinuousBackupsInput",
            TableName=TABLE.required,
            PointInTimeRecoverySpecification=record(
                "PointInTimeRecoverySpecification",
                PointInTimeRecoveryEnabled=FLAG.required,
                RecoveryPeriodInDays=integer(1, 35),
            ).required,
        ),
        steps=(steps.table,),
    ),
}
