"""The web dashboard: its shell, the pattern of a page, and the pages of instances and operations.

Read in this order:

    page_view        ConsoleView: who asks, in which tenant, may they; full pages, parts, refusals
    api_calls        a page changes something by calling the REST API, inside this process
    navigation       the table of what stands in the side bar
    urls             the table of all pages
    overview         a tenant's first page
"""
