"""How WeftKit is run: one package or folder for each way, none of them needed by another.

    local/        the embedded default behind `make up`: everything on one machine, from wheels
    docker/       images
    compose/      several containers on one machine
    kubernetes/   a chart
    systemd/      units for a machine that is WeftKit's own
    monitoring/   dashboards and alerts
    runbooks/     what to do when

Nothing else imports from here.
"""
